// A program that knows nothing of OpenTelemetry: a server that is asked 50 times, once slowly.
const http = require('http');

const server = http.createServer((request, response) => {
  setTimeout(() => response.end('ok'), request.url === '/slow' ? 700 : 2);
});

server.listen(0, '127.0.0.1', async () => {
  const base = `http://127.0.0.1:${server.address().port}`;
  const get = (path) => new Promise((done) => http.get(base + path, (response) => response.resume().on('end', done)));
  for (let i = 0; i < 49; i++) await get('/fast');
  await get('/slow');
  server.close();
  process.kill(process.pid, 'SIGTERM'); // the instrumentation sends what it has, then ends
});
