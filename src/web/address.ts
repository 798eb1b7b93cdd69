/** The page's address: behind the # the token, and, after a slash, what is looked at. */

const parts = (): readonly string[] => location.hash.slice(1).split('/');

export const token = (): string => parts()[0] ?? '';
export const recordingInAddress = (): string | undefined => parts()[1];

/** The address that shows a recording. */
export const addressOf = (id: string): string => `#${token()}/${id}`;

/** What may ask for things that need the token. */
export const authorized = (): RequestInit => ({ headers: { Authorization: `Bearer ${token()}` } });
