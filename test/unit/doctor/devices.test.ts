/** What is said of the devices that a guest is to have. */
import { rmSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { checkDevices } from '../../../src/doctor/devices.ts';
import { NIC, closing, healthyTree, systemOf, told } from '../../support/doctor.ts';

const GPU = '0000:02:00.0';
const AUDIO = '0000:02:00.1';

describe('devices', () => {
  it('that are bound to vfio-pci are looked at without being named', () => {
    using tree = healthyTree();
    const results = checkDevices(systemOf(tree), []);
    expect(results.map(told)).toEqual([
      `ok device ${NIC}: 8086:10d3, bound to vfio-pci`,
      `ok IOMMU group 7: viable: ${NIC}`,
      'ok /dev/vfio/7: open to alice',
      'ok /dev/vfio/vfio: open to alice',
    ]);
    expect(results.map(({ remedy }) => remedy).join('')).toBe('');
  });

  it('of which there is none', () => {
    using tree = healthyTree();
    tree.unbind(NIC);
    const [result, ...rest] = checkDevices(systemOf(tree), []);
    expect(result && told(result)).toMatch(/^warning device: none is bound to vfio-pci/);
    expect(result?.remedy).toContain('mmiobridge doctor --device ADDRESS');
    expect(rest).toEqual([]);
  });

  it('that the host does not have', () => {
    using tree = healthyTree();
    const [result] = checkDevices(systemOf(tree), ['0000:99:00.0']);
    expect(result && told(result)).toMatch(/^failure device 0000:99:00\.0: the host has no such/);
    expect(result?.remedy).toBe('lspci -D');
  });

  it.each([
    ['its own driver', 'e1000e'],
    ['no driver', undefined],
  ])('with %s', (words, driver) => {
    using tree = healthyTree();
    tree.device({ address: GPU, group: 8, ...(driver === undefined ? {} : { driver }) });
    const [result] = checkDevices(systemOf(tree), [GPU]);
    expect(result?.status).toBe('failure');
    expect(result?.evidence).toContain(`is bound to ${driver ?? 'no driver'}, not to vfio-pci`);
    expect(result?.remedy, words).toBe(`mmiobridge bind ${GPU}`);
  });

  it('that share a group with one that is in use', () => {
    using tree = healthyTree();
    tree.device({ address: GPU, group: 8, driver: 'vfio-pci' });
    tree.device({ address: AUDIO, group: 8, driver: 'snd_hda_intel' });
    const results = checkDevices(systemOf(tree), [GPU]);
    const group = results.find(({ id }) => id === 'iommu-group');
    expect(group && told(group)).toBe(
      `failure IOMMU group 8: not viable: ${AUDIO} (8086:10d3) is bound to snd_hda_intel`,
    );
    expect(group?.remedy).toMatch(new RegExp(`^mmiobridge bind ${AUDIO}\n`));
  });

  it('that share a group with one that is in use, before they are bound', () => {
    using tree = healthyTree();
    tree.device({ address: GPU, group: 8, driver: 'nouveau' });
    tree.device({ address: AUDIO, group: 8, driver: 'snd_hda_intel' });
    const results = checkDevices(systemOf(tree), [GPU]);
    expect(results.map(({ id, status }) => `${id} ${status}`)).toEqual([
      'device failure',
      'iommu-group failure',
      'vfio-node ok',
    ]);
    expect(results[0]?.remedy).toBe(`mmiobridge bind ${GPU} ${AUDIO}`);
  });

  it('that are in no group', () => {
    using tree = healthyTree();
    tree.device({ address: GPU, driver: 'vfio-pci' });
    const [result] = checkDevices(systemOf(tree), [GPU]);
    expect(result && told(result)).toMatch(/^failure .*in no IOMMU group$/);
    expect(result?.remedy).toBe('switch the IOMMU on first');
  });

  it('that are bridges', () => {
    using tree = healthyTree();
    tree.device({ address: GPU, group: 8, classCode: '0x060400', driver: 'pcieport' });
    const [result] = checkDevices(systemOf(tree), [GPU]);
    expect(result && told(result)).toMatch(/^failure .*is a bridge: VFIO takes none$/);
  });

  it('whose files in /dev/vfio are closed', () => {
    using tree = healthyTree();
    const results = checkDevices(closing(tree, 'dev/vfio/7'), [NIC]);
    const node = results.find(({ title }) => title === '/dev/vfio/7');
    expect(node && told(node)).toBe('failure /dev/vfio/7: not open to alice (EACCES)');
    expect(node?.remedy).toMatch(/^chown alice \/dev\/vfio\/7\n.*SUBSYSTEM=="vfio"/);
  });

  it('whose way into VFIO is missing', () => {
    using tree = healthyTree();
    rmSync(tree.path('dev/vfio'), { recursive: true });
    const missing = checkDevices(systemOf(tree), [NIC]).filter(({ status }) => status !== 'ok');
    expect(missing.map(told)).toEqual([
      'failure /dev/vfio/7: not there',
      'failure /dev/vfio/vfio: not there',
    ]);
    expect(missing[0]?.remedy).toContain('modprobe vfio-pci');
  });
});
