/**
 * Splits a command line into words as a shell does, by blanks, quotes and backslashes; nothing is
 * expanded. A text is what is wrong with it.
 */
export function splitWords(text: string): string[] | string {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at);
    if (quote === "'") {
      if (char === "'") quote = undefined;
      else word += char;
    } else if (
      char === '\\' &&
      at + 1 < text.length &&
      (quote === undefined || /["\\$`\n]/.test(text.charAt(at + 1)))
    ) {
      at++;
      // A line that goes on.
      if (text.charAt(at) !== '\n') word = (word ?? '') + text.charAt(at);
    } else if (quote === '"') {
      if (char === '"') quote = undefined;
      else word += char;
    } else if (char === '"' || char === "'") {
      quote = char;
      word ??= '';
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + char;
  }
  if (quote !== undefined) return `a command line with both halves of its ${quote}`;
  if (word !== undefined) words.push(word);
  return words;
}
