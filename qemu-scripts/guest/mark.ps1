# Puts a mark into the recording of the virtual machine that this runs in:
#
#   powershell -ExecutionPolicy Bypass -File mark.ps1 TEXT...
#
# A line with the guest's clock goes to the virtio-serial port org.mmiobridge.mark, or to the serial port
# or file that MMIOBRIDGE_MARK_PORT names (COM2, say; C:\marks.txt for a recording that reads it through
# the guest agent).
if ($args.Count -eq 0) {
  [Console]::Error.WriteLine('usage: mark.ps1 TEXT...')
  exit 2
}

$epoch = [DateTime]'1970-01-01T00:00:00Z'
$seconds = ([DateTime]::UtcNow - $epoch.ToUniversalTime()).TotalSeconds
$now = $seconds.ToString('F6', [Globalization.CultureInfo]::InvariantCulture)
$line = [Text.Encoding]::UTF8.GetBytes("$now $($args -join ' ')`n")

$port = $env:MMIOBRIDGE_MARK_PORT
if (-not $port) { $port = '\\.\Global\org.mmiobridge.mark' }
if ($port -match '^COM\d+$') {
  $serial = New-Object IO.Ports.SerialPort $port, 115200
  $serial.Open()
  $serial.Write($line, 0, $line.Length)
  $serial.Close()
  exit 0
}

$isDevice = $port.StartsWith('\\.\')
$mode = if ($isDevice) { [IO.FileMode]::Open } else { [IO.FileMode]::Append }
try {
  if ($isDevice) {
    # A device has no length, which File.Open of Windows PowerShell asks for.
    Add-Type -Namespace Mmiobridge -Name Native -MemberDefinition @'
[DllImport("kernel32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
public static extern Microsoft.Win32.SafeHandles.SafeFileHandle CreateFile(string name, uint access,
  uint share, IntPtr security, uint disposition, uint flags, IntPtr template);
'@
    $handle = [Mmiobridge.Native]::CreateFile($port, 0x40000000, 0, [IntPtr]::Zero, 3, 0, [IntPtr]::Zero)
    if ($handle.IsInvalid) { throw "cannot open $port" }
    $stream = New-Object IO.FileStream $handle, ([IO.FileAccess]::Write), 1, $false
  } else {
    $stream = [IO.File]::Open($port, $mode, [IO.FileAccess]::Write, [IO.FileShare]::ReadWrite)
  }
  $stream.Write($line, 0, $line.Length)
  $stream.Close()
} catch {
  [Console]::Error.WriteLine("mark.ps1: $port`: $_ (is there a virtio-serial port org.mmiobridge.mark, and its driver? else set MMIOBRIDGE_MARK_PORT)")
  exit 1
}
