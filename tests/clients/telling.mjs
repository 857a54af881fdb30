// How stories in JavaScript say what happened, and hear what the runner did.
//
// A story says one check a line on stdout ("@ ok …" or "@ failed …").
import { createInterface } from "node:readline";
import { isDeepStrictEqual } from "node:util";

export const say = (line) => process.stdout.write(`@ ${line}\n`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
export const heard = async (word) => {
    const { value } = await lines.next();
    if (value !== word) throw new Error(`expected '${word}' from the runner, got '${value}'`);
};

export async function check(what, action) {
    try {
        const result = await action();
        say(`ok ${what}`);
        return result;
    } catch (error) {
        say(`failed ${what}: ${String(error?.message ?? error).replaceAll("\n", " ")}`);
        throw error;
    }
}

/** Equal as JSON, in which the order of keys says nothing. */
export function equal(actual, expected, what = "value") {
    const [a, b] = [actual, expected].map((value) => JSON.stringify(value ?? null));
    if (!isDeepStrictEqual(JSON.parse(a), JSON.parse(b))) throw new Error(`${what}: ${a} instead of ${b}`);
}

/** The errcode with which something is refused; nothing if it isn't. */
export const refusal = (promise) => promise.then(() => null, (error) => error.errcode ?? String(error));
