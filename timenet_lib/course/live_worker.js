// The network, in a worker of its own so that the page goes on drawing while it computes. The first message brings the
// runtime (onnxruntime-web's module), its WebAssembly and the ONNX model; each later one an image, a noise and a class.

let ort = null;
let session = null;

async function start({ runtime, wasm, model }) {
  const address = URL.createObjectURL(new Blob([runtime], { type: "text/javascript" }));
  ort = await import(address);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = wasm;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  return { ready: true };
}

async function repair({ image, noise, classNumber, size }) {
  const shape = [1, 3, size, size];
  const began = performance.now();
  const made = await session.run({
    image: new ort.Tensor("float32", image, shape),
    noise: new ort.Tensor("float32", noise, shape),
    class: new ort.Tensor("int64", BigInt64Array.of(BigInt(classNumber)), [1]),
  });
  const milliseconds = performance.now() - began;
  return {
    milliseconds,
    reconstruction: made.reconstruction.data,
    timestepMap: made.timestep_map.data,
    scoreMap: made.score_map.data,
    imageScore: made.image_score.data[0],
  };
}

self.onmessage = async ({ data }) => {
  try {
    self.postMessage(session ? await repair(data) : await start(data));
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
