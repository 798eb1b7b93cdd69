import { SYSTEM_QEMU } from './qemu.ts';
import { scriptLines, words } from './scripts.ts';

/**
 * A guest without an image: the option ROM of the network card is a real driver, and drives the
 * card's BAR0 within 3 seconds (5 on QEMU 11). It runs for ever.
 */
export function demoGuest(qemu: string = SYSTEM_QEMU): string[] {
  return [
    qemu,
    ...words('-machine pc -accel tcg -m 64 -nodefaults -display none'),
    ...words('-device e1000,netdev=n,id=dut -netdev user,id=n'),
  ];
}

/** The exit status of a QEMU whose hammer guest has come to its end. */
export const HAMMER_DONE = 33;

/** Where the hammer guest puts BAR0 of its device. */
export const HAMMER_GPA = 0xe100_0000;

/** The slot on bus 0 that the hammer guest expects its device in. */
export const HAMMER_SLOT = 4;

export interface HammerOptions {
  /** Pairs of a write and a read; 0 is for ever. */
  readonly iterations: number;
  /**
   * Arguments that add the device, at `addr=4` of bus 0. The default is QEMU's `edu`, whose
   * register 4 keeps any 32-bit value and reads back its complement.
   */
  readonly device?: readonly string[];
  /** Offsets in BAR0. */
  readonly writeOffset?: number;
  readonly readOffset?: number;
  /** Bytes of an access: 1, 2, 4, 8 or 16; a sum of them makes a pair of each in turn. Default: 4. */
  readonly widths?: number;
  /** Turns of an empty loop after each pair. */
  readonly pauseTurns?: number;
  /** Processors that do so at once, each counting for itself. */
  readonly processors?: number;
  readonly accel?: 'tcg' | 'kvm';
  /** The program; or what is put before it, and the program. */
  readonly qemu?: string | readonly string[];
}

/**
 * A guest that writes 0, 1, 2, … to one register of its device as fast as it can, and reads one
 * back after each write, all 4 bytes wide if it is not told otherwise. Ends with status `HAMMER_DONE`.
 */
export async function hammerGuest(options: HammerOptions): Promise<string[]> {
  const { iterations, writeOffset = 4, readOffset = 4, widths = 4, pauseTurns = 0 } = options;
  const { processors = 1 } = options;
  const [elf = ''] = await scriptLines('guests/hammer.sh');
  return [
    ...[options.qemu ?? SYSTEM_QEMU].flat(),
    ...words(
      `-machine pc -accel ${options.accel ?? 'tcg'} -smp ${processors} -m 32 -nodefaults -display none -no-reboot`,
    ),
    ...(options.device ?? words(`-device edu,addr=${HAMMER_SLOT},id=dut`)),
    ...words('-device isa-debug-exit,iobase=0x501,iosize=1'),
    '-kernel',
    elf,
    '-append',
    `n=${iterations} d=${HAMMER_SLOT} w=${writeOffset} r=${readOffset} p=${pauseTurns} b=${widths} c=${processors}`,
  ];
}
