/** Called for what a person should see while it happens. */
export type Notice = (message: string) => void;
