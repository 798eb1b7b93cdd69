# What one writes by hand: vfio lines of a QEMU log as mmiotrace's R and W lines.
if (/^(?:\d+@)?(\d+\.\d+):vfio_region_(read|write) +\((.*):region(\d)\+0x([0-9a-f]+), (.*)\)(?: = 0x([0-9a-f]+))?$/) {
  my ($time, $op, $device, $bar, $offset, $rest, $read) = ($1, $2, $3, $4, $5, $6, $7);
  my ($value, $width) = $op eq 'read' ? ($read, $rest) : split /, /, $rest;
  $map{"$device $bar"} //= ++$maps;
  printf "%s %d %.6f %d 0x%x 0x%x 0x0 0\n", $op eq 'read' ? 'R' : 'W', $width, $time - $start,
    $map{"$device $bar"}, $base{$bar} + hex $offset, hex $value;
} elsif (/^(?:\d+@)?(\d+\.\d+):pci_update_mappings_add vfio-pci \S+ (\d),0x([0-9a-f]+)/) {
  $start //= $1;
  $base{$2} = hex $3;
}
