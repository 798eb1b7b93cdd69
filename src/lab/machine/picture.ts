/** Pictures of the guest's screen. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PNG } from 'pngjs';
import { MmioError, messageOf } from '../../base/errors.ts';
import { escapeBytes } from '../../base/escape.ts';
import type { Machine } from './machine.ts';

/** Three bytes a pixel, red first, row after row. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** A display of QEMU has no more. */
const MAX_PIXELS = 2 ** 26;

/** The screen as it is now. Throws MmioError `refused` where the VM has no display. */
export async function takePicture(machine: Machine, timeoutMs = 10_000): Promise<Picture> {
  // QEMU may write there, whoever it runs as: its log is there, too.
  const path = join(machine.started.info.spoolDir, 'screen.ppm');
  try {
    const qmp = await machine.qmp();
    await qmp.execute('screendump', { filename: path }, { timeoutMs });
    return parsePpm(await readFile(path));
  } catch (error) {
    if (
      error instanceof MmioError &&
      /no (?:graphical )?console|no surface|not exist/i.test(error.evidence ?? '')
    ) {
      throw new MmioError('refused', 'the VM has no display to take a picture of', {
        evidence: error.evidence,
        hint: 'give it one: -vga std -display none',
        cause: error,
      });
    }
    throw error;
  } finally {
    await rm(path, { force: true });
  }
}

/** Takes a picture into a PNG file. Throws as `takePicture`. */
export async function photograph(
  machine: Machine,
  path: string,
  timeoutMs?: number,
): Promise<Picture> {
  const picture = await takePicture(machine, timeoutMs);
  await writePng(picture, path);
  return picture;
}

/** Binary PPM with 8 bits a colour, as QEMU writes it (ppm(5)). Throws MmioError `damaged`. */
export function parsePpm(bytes: Uint8Array): Picture {
  const head = Buffer.from(bytes.subarray(0, 64)).toString('latin1');
  const match = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(head);
  const width = Number(match?.[1]);
  const height = Number(match?.[2]);
  const start = match?.[0].length ?? 0;
  if (match === null || width * height > MAX_PIXELS || bytes.length < start + 3 * width * height) {
    throw new MmioError('damaged', "QEMU's picture of the screen cannot be read", {
      evidence: `${bytes.length} bytes: ${escapeBytes(bytes.subarray(0, 20), 60)}`,
    });
  }
  return { width, height, rgb: bytes.subarray(start, start + 3 * width * height) };
}

export async function writePng({ width, height, rgb }: Picture, path: string): Promise<void> {
  const png = new PNG({ width, height, colorType: 2, inputColorType: 2, inputHasAlpha: false });
  const data = PNG.sync.write(
    Object.assign(png, { data: Buffer.from(rgb.buffer, rgb.byteOffset, rgb.length) }),
    { colorType: 2, inputColorType: 2, inputHasAlpha: false },
  );
  await writeFile(path, data);
}

/** Throws MmioError `not-found`, `damaged`. */
export async function readPng(path: string): Promise<Picture> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new MmioError('not-found', `cannot read the picture ${path}`, {
      evidence: messageOf(error),
      cause: error,
    });
  }
  try {
    const { width, height, data } = PNG.sync.read(bytes);
    const rgb = new Uint8Array(3 * width * height);
    for (let pixel = 0; pixel < width * height; pixel++) {
      rgb.set(data.subarray(4 * pixel, 4 * pixel + 3), 3 * pixel);
    }
    return { width, height, rgb };
  } catch (error) {
    throw new MmioError('damaged', `${path} is no PNG picture`, {
      evidence: messageOf(error),
      hint: 'a step `screendump` takes one that can be matched later',
      cause: error,
    });
  }
}

/** Differences in a colour up to this are none: dithering, and the rounding of a display. */
const SAME_COLOUR = 8;

/** A part of a picture; all of it where it is not given. */
export interface Area {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** How much of two pictures differs, from 0 to 1; 1 where they differ in size. */
export function difference(a: Picture, b: Picture, area?: Area): number {
  if (a.width !== b.width || a.height !== b.height) return 1;
  const left = Math.min(area?.x ?? 0, a.width);
  const top = Math.min(area?.y ?? 0, a.height);
  const right = area === undefined ? a.width : Math.min(a.width, left + area.width);
  const bottom = area === undefined ? a.height : Math.min(a.height, top + area.height);
  const pixels = (right - left) * (bottom - top);
  if (pixels <= 0) return 0;
  let different = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const at = 3 * (y * a.width + x);
      for (let colour = 0; colour < 3; colour++) {
        if (Math.abs((a.rgb[at + colour] ?? 0) - (b.rgb[at + colour] ?? 0)) > SAME_COLOUR) {
          different++;
          break;
        }
      }
    }
  }
  return different / pixels;
}
