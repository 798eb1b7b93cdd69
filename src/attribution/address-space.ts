/** Where in the guest's address space the BARs of selected devices are. */
import type { AliasRegion } from '../machine/alias.ts';
import type { Region } from '../model/device.ts';

/** One place that a BAR has been at. Gets its mapId at the first access through it. */
export interface BarMapping {
  readonly region: Region;
  readonly gpa: number;
  readonly lengthBytes: number;
  readonly io: boolean;
  mapId: number;
}

export class AddressSpace {
  /** The latest first: where two overlap for a moment, it is the one that the guest has just made. */
  #mappings: BarMapping[] = [];
  #aliases: readonly AliasRegion[] = [];
  #moved = false;

  add(mapping: BarMapping): void {
    this.#mappings.unshift(mapping);
    this.#moved = true;
  }

  remove(mapping: BarMapping): void {
    this.#mappings = this.#mappings.filter((other) => other !== mapping);
  }

  /** Whether a BAR has come to a new place since this was last asked. */
  consumeMoved(): boolean {
    const moved = this.#moved;
    this.#moved = false;
    return moved;
  }

  /** The BAR mapping that an address lies in. */
  mappingAt(gpa: number): BarMapping | undefined {
    for (const mapping of this.#mappings) {
      if (gpa >= mapping.gpa && gpa < mapping.gpa + mapping.lengthBytes) return mapping;
    }
    return undefined;
  }

  setAliases(aliases: readonly AliasRegion[]): void {
    this.#aliases = aliases;
  }

  /** Pairs of places that are logged alike, and the one of each that is taken. */
  get doubts(): { readonly hidden: number; readonly taken: number }[] {
    return this.#aliases
      .filter(({ ambiguous }) => ambiguous)
      .map(({ gpaStart, logBase, regionOffset, shadowed }) => {
        const direct = logBase + regionOffset;
        return shadowed ? { hidden: gpaStart, taken: direct } : { hidden: direct, taken: gpaStart };
      });
  }

  /**
   * The guest's address for the one that is logged of a MemoryRegion: the same, unless the guest
   * reaches the region through an alias. Of two that fit the plain one, or the one in memory:
   * drivers prefer it.
   */
  guestAddressOf(name: string, logged: number): number {
    let found: number | undefined;
    for (const alias of this.#aliases) {
      if (alias.name !== name || alias.shadowed) continue;
      const offset = logged - alias.logBase - alias.regionOffset;
      if (offset < 0 || offset >= alias.lengthBytes) continue;
      if (alias.space === 'memory') return alias.gpaStart + offset;
      found ??= alias.gpaStart + offset;
    }
    return found ?? logged;
  }
}
