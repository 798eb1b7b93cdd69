/** The offset of `config+0x3c`; undefined where the text is none, or is outside configuration space. */
export function configPlace(text: string): number | undefined {
  const digits = /^config\+(0x[0-9a-f]{1,3})$/i.exec(text.trim())?.[1];
  return digits === undefined ? undefined : Number(digits);
}
