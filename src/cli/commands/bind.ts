import { Command } from '@commander-js/extra-typings';
import type { Command as AnyCommand } from 'commander';
import { gatherPciAddress } from '../parse.ts';

const HELP = `
Refuses what the host cannot spare: a device that holds a mounted disk, the only default route
or the boot display, and one whose IOMMU group has other devices that the host uses. Devices of
one group are given together; bridges need not be. What each device was is remembered in
/run/mmiobridge until it is unbound.

Examples:
  A network card:
    mmiobridge bind 0000:01:00.0
  A graphics card and its sound, which share a group:
    mmiobridge bind 02:00.0 02:00.1
  What would be done:
    mmiobridge bind --dry-run 01:00.0`;

export function bindCommand(): AnyCommand {
  const command = new Command('bind')
    .summary('give PCI devices to vfio-pci, for a guest')
    .argument('<address...>', '0000:01:00.0 or 01:00.0', gatherPciAddress)
    .option('--force', 'take also what the host uses')
    .option('--dry-run', 'print what would be done, and do nothing')
    .addHelpText('after', HELP);
  command.action(async (addresses, options) => {
    const { runBind } = await import('../run/bind.ts');
    await runBind(addresses, options);
  });
  return command as unknown as AnyCommand;
}
