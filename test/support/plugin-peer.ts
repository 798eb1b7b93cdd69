import { createServer, type Socket } from 'node:net';

/** Somebody at the plugin's socket who answers its hello with these bytes, whatever they are. */
export async function answering(
  path: string,
  answer: readonly Uint8Array[],
  { hangUp }: { readonly hangUp: boolean },
): Promise<AsyncDisposable & { readonly path: string }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('data', () => {
      for (const bytes of answer) socket.write(bytes);
      if (hangUp) socket.end();
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
