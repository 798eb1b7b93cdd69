import { MmioError } from '../base/errors.ts';

// Columns are copied between typed arrays and the wire as they lie in memory, and the wire is
// little-endian. So is every host that has KVM and VFIO for x86 guests; one that is not must not
// write captures that nobody else can read.
if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) {
  throw new MmioError('refused', 'captures need a little-endian host');
}
