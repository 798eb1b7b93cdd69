import { answersTo, isPassedThrough, type Device } from '../model/device.ts';

/** What `--device` named; empty: all vfio devices. */
export type Selection = readonly string[];

export function isSelected(selection: Selection, device: Device): boolean {
  if (selection.length === 0) return isPassedThrough(device);
  return selection.some((name) => answersTo(device, name));
}
