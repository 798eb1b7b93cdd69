import { createServer, type Server, type Socket } from 'node:net';
import { MmioError, messageOf, systemCodeOf } from '../base/errors.ts';
import { MAX_SOCKET_PATH_BYTES } from '../base/socket-path.ts';
import { serve } from './connection.ts';
import type { RegisterDevice } from './device.ts';

export interface ServerOptions {
  /**
   * What clients did wrong and what broke, as it happens. The server goes on; a command that was
   * wrong has been answered with an error.
   */
  readonly onProblem: (problem: MmioError) => void;
}

/**
 * Offers a device on a Unix socket to one client at a time, such as QEMU's vfio-user-pci. The
 * device keeps its state between clients, as the specification wants it.
 */
export class VfioUserServer implements AsyncDisposable {
  readonly path: string;
  readonly device: RegisterDevice;
  readonly #server: Server;
  #client: Socket | undefined;

  private constructor(path: string, device: RegisterDevice, options: ServerOptions) {
    this.path = path;
    this.device = device;
    this.#server = createServer((socket) => {
      if (this.#client !== undefined) {
        socket.destroy();
        options.onProblem(
          new MmioError('refused', 'vfio-user: one client more than the one that is served', {
            evidence: path,
            hint: 'offer each client a device and a socket of its own',
          }),
        );
        return;
      }
      this.#client = socket;
      const free = (): void => {
        if (this.#client === socket) this.#client = undefined;
      };
      socket.once('close', free);
      // The next one may come before this one is closed to the end.
      socket.once('end', () => {
        if (socket.writableLength === 0) free();
      });
      serve(socket, device, options.onProblem);
    });
  }

  /**
   * Makes the socket, for its owner only (mode 0600). Throws MmioError where it cannot be made, and
   * what Node throws in a worker thread, which cannot set the mode.
   */
  static async listen(
    path: string,
    device: RegisterDevice,
    options: ServerOptions,
  ): Promise<VfioUserServer> {
    if (path === '' || path.includes('\0') || Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
      throw new MmioError('usage', 'not a path that a unix socket can have', {
        evidence: path,
        hint: `it needs 1 to ${MAX_SOCKET_PATH_BYTES} bytes`,
      });
    }
    const made = new VfioUserServer(path, device, options);
    const server = made.#server;
    await new Promise<void>((resolve, reject) => {
      server.on('error', (error) => {
        const problem = listenError(path, error);
        if (server.listening) options.onProblem(problem);
        else reject(problem);
      });
      // The socket comes into being within listen(): no moment in which others could connect.
      const before = process.umask(0o177);
      try {
        server.listen(path, resolve);
      } finally {
        process.umask(before);
      }
    });
    return made;
  }

  /** Ends the client's connection and takes the socket away. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }
}

function listenError(path: string, error: Error): MmioError {
  const detail = { evidence: `${path}: ${messageOf(error)}`, cause: error };
  switch (systemCodeOf(error)) {
    case 'EADDRINUSE':
      return new MmioError('refused', 'vfio-user: something is at the path of the socket', {
        ...detail,
        hint: 'choose another path, or remove what a server that was killed has left',
      });
    // Node says so of a folder that is not there, too.
    case 'EACCES':
      return new MmioError('refused', 'vfio-user: no socket can be made there', {
        ...detail,
        hint: 'is the folder there, and may this user write in it?',
      });
    default:
      return new MmioError('io', 'vfio-user: cannot make the socket', detail);
  }
}
