import type { CaptureIndex } from './capture-index.ts';
import { selectionMessage, type SelectionMessage } from './selection-message.ts';
import { Selection, type SelectionKey } from './selection.ts';

/** So many that nobody looks at any more are kept, for those who come back. */
const KEPT = 8;

/** Selections by what they select: all who watch the same share one. */
export class Selections {
  readonly #index: CaptureIndex;
  readonly #onFailure: (error: unknown) => void;
  /** Least recently used first. */
  readonly #entries = new Map<string, { readonly selection: Selection; users: number }>();
  /** What all who watch a selection are told, made once for each version of it. */
  readonly #messages = new WeakMap<
    Selection,
    { readonly version: number; readonly message: SelectionMessage }
  >();

  constructor(index: CaptureIndex, onFailure: (error: unknown) => void) {
    this.#index = index;
    this.#onFailure = onFailure;
  }

  /** Throws FilterError. */
  acquire(key: SelectionKey): Selection {
    const name = nameOf(key);
    let entry = this.#entries.get(name);
    if (entry === undefined) {
      const selection = new Selection(this.#index, key);
      entry = { selection, users: 0 };
      selection.catchUp().catch(this.#onFailure);
    }
    entry.users++;
    this.#entries.delete(name);
    this.#entries.set(name, entry);
    return entry.selection;
  }

  message(selection: Selection): SelectionMessage {
    const { version } = selection;
    const made = this.#messages.get(selection);
    if (made?.version === version) return made.message;
    const message = selectionMessage(selection);
    this.#messages.set(selection, { version, message });
    return message;
  }

  release(selection: Selection): void {
    const entry = this.#entries.get(nameOf(selection.key));
    if (entry?.selection !== selection) return;
    entry.users--;
    let idle = [...this.#entries.values()].filter(({ users }) => users === 0).length;
    for (const [name, { users, selection: old }] of this.#entries) {
      if (idle <= KEPT) return;
      if (users > 0) continue;
      old.close();
      this.#entries.delete(name);
      idle--;
    }
  }
}

function nameOf({ filter, fromNs, toNs }: SelectionKey): string {
  return `${fromNs} ${toNs} ${filter}`;
}
