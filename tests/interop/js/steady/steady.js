// Makes numbered spans at a steady rate with the SDK's defaults, and prints how many. Everything else is in the environment.
const { trace, SpanKind } = require('@opentelemetry/api');
const { NodeSDK } = require('@opentelemetry/sdk-node');

const rate = Number(process.env.STEADY_RATE);
const made = Number(process.env.STEADY_SECONDS) * rate;
const sdk = new NodeSDK();
sdk.start();
const tracer = trace.getTracer('restarts');

async function main() {
  const begin = performance.now();
  for (let n = 0; n < made; n++) {
    const wait = begin + (n * 1000) / rate - performance.now();
    if (wait > 0) await new Promise((done) => setTimeout(done, wait));
    tracer.startSpan('steady', { kind: SpanKind.SERVER, attributes: { n } }).end();
  }
  await sdk.shutdown().catch(console.error);
  console.log(made);
}

main();
