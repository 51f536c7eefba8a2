// Runs a program of the target wasm32-wasip1, with its arguments and the environment: node .ci/wasi.mjs FILE.wasm [ARGS]
import { readFile } from 'node:fs/promises';
import { argv, cwd, env, exit } from 'node:process';
import { WASI } from 'node:wasi';

const [file, ...args] = argv.slice(2);
const wasi = new WASI({ version: 'preview1', args: [file, ...args], env, preopens: { '/': cwd() } });
const { instance } = await WebAssembly.instantiate(await readFile(file), wasi.getImportObject());
exit(wasi.start(instance));
