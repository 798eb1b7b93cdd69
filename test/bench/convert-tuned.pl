# The same as convert.pl with as little work for perl as we could find.
if (/^\d+@(\d+)(\.\d+):vfio_region_(r|w)\w+  \((\S+):region(\d)\+0x([0-9a-f]+), (?:0x([0-9a-f]+), (\d)\)|(\d)\) = 0x([0-9a-f]+))$/) {
  $map{$5} ||= ++$maps;
  printf "%s %d %d%s %d 0x%x 0x%s 0x0 0\n", uc $3, $8 || $9, $1 - $start, $2, $map{$5},
    $base{$5} + hex $6, $7 // $10;
} elsif (/^\d+@(\d+).*pci_update_mappings_add vfio-pci \S+ (\d),0x([0-9a-f]+)/) {
  $start //= $1;
  $base{$2} = hex $3;
}
