import assert from "node:assert/strict";
import test from "node:test";

import { lastState, piecesOf, plainText, styleAfter } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/log/ansi.js";
import { coloursOf, contrast, LEAST_CONTRAST, readable } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/log/colours.js";

const ESC = "\u001b";

test("colours begin and end where the terminal's do", () => {
  assert.deepEqual(piecesOf(`a${ESC}[1;31mred${ESC}[0m b${ESC}[38;5;208mo${ESC}[39m${ESC}[48;2;1;2;3mx${ESC}[mend`), [
    { text: "a", style: null },
    { text: "red", style: { bold: true, fg: 1 } },
    { text: " b", style: null },
    { text: "o", style: { fg: [255, 135, 0] } },
    { text: "x", style: { bg: [1, 2, 3] } },
    { text: "end", style: null },
  ]);
  for (const [parameters, style] of [
    ["", {}], ["0", {}], ["1;22", {}], ["4;24;3;23;9;29;7;27", {}], ["97", { fg: 15 }], ["100", { bg: 8 }], ["37;40", { fg: 7, bg: 0 }],
    ["38;5;232", { fg: [8, 8, 8] }], ["38;5;16", { fg: [0, 0, 0] }], ["38;5;231", { fg: [255, 255, 255] }], ["38;5;9", { fg: 9 }],
    ["38:2::10:20:30", { fg: [10, 20, 30] }], ["38:2:10:20:30", { fg: [10, 20, 30] }], ["38;2;10;20;30;1", { fg: [10, 20, 30], bold: true }],
    ["38;5;999", {}], ["38;2;1;2", {}], ["38", {}], ["38;9;1", {}], ["999;8;5;-", {}], ["1;".repeat(5000), { bold: true }],
  ]) {
    assert.deepEqual(styleAfter({}, parameters), style, parameters);
  }
});

test("all other sequences are left out", () => {
  for (const sequence of [
    `${ESC}[2J`, `${ESC}[10;20H`, `${ESC}[?25l`, `${ESC}[K`, `${ESC}[>0c`, `${ESC}[ q`, `${ESC}c`, `${ESC}(B`, `${ESC}7`, `${ESC}=`, `${ESC}[1;2`,
    `${ESC}]0;title\u0007`, `${ESC}]8;;http://evil/${ESC}\\`, `${ESC}Pq#0;2;0;0;0${ESC}\\`, `${ESC}_x${ESC}\\`, `${ESC}]52;c;ZXZpbA==\u0007`, `${ESC}[31 m`,
  ]) {
    assert.equal(plainText(`a${sequence}`), "a", JSON.stringify(sequence));
  }
  assert.equal(plainText(`${ESC}]8;;http://evil/${ESC}\\link${ESC}]8;;${ESC}\\ more`), "link more");
  // A string without an end hides nothing.
  assert.equal(plainText(`${ESC}]0;all of this is seen`), "0;all of this is seen");
});

test("of a progress bar the last state is kept", () => {
  assert.equal(lastState("10%|# |\r20%|##|\r"), "20%|##|");
  assert.equal(lastState("done\r"), "done");
  assert.equal(lastState("\r\r"), "");
  assert.equal(plainText("  1/3\r  2/3\r  3/3"), "  3/3");
  assert.equal(plainText("b\bbo\bold _\bx"), "bold x");
});

test("what cannot be seen is shown", () => {
  for (const [text, seen] of [
    ["a\u202eb", "a<U+202E>b"], ["\u2066x\u2069", "<U+2066>x<U+2069>"], ["a\u200bb", "a<U+200B>b"], ["\u0000\u0007\u007f\u0085", "\\x00\\x07\\x7f\\x85"],
    ["a\u200db", "a<U+200D>b"], ["👩\u200d💻", "👩\u200d💻"], ["\u0646\u200c\u0645", "\u0646\u200c\u0645"], ["\u{e0041}", "<U+E0041>"],
    ["\ud800", "<U+D800>"], ["😀", "😀"], ["a\u2028b", "a<U+2028>b"], ["a\tb", "a\tb"], ["\u0041\u0301", "\u0041\u0301"], ["\ufeffx", "<U+FEFF>x"],
  ]) {
    assert.equal(plainText(text), seen, JSON.stringify(text));
  }
  assert.deepEqual(piecesOf("a\u202e").map(({ isMark }) => isMark ?? false), [false, true]);
});

test("a hostile line takes a moment and has few pieces", () => {
  const began = performance.now();
  for (const part of [`${ESC}[31m`, `${ESC}]`, `${ESC}]x`, "\u202e", `${ESC}[`, "\b", "a\b\u200d", `${ESC}[38;2;1;2;3mx`, "\ud800"]) {
    const pieces = piecesOf(part.repeat(20_000));
    assert.ok(pieces.length <= 502, part);
    assert.doesNotMatch(pieces.map(({ text }) => text).join(""), /[\u0000-\u0008\u202e]/);
  }
  assert.ok(performance.now() - began < 3000);
});

test("every colour can be read on a light and on a dark page", () => {
  const colours = [undefined, ...Array(16).keys(), [0, 0, 0], [255, 255, 255], [128, 128, 128], [255, 255, 0], [0, 0, 255], [200, 100, 50], [119, 119, 119]];
  const parse = (text, otherwise) => (text === null ? otherwise : [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  for (const fg of colours) {
    for (const bg of colours) {
      for (const more of [{}, { inverse: true }, { dim: true }]) {
        const { light, dark } = coloursOf({ fg, bg, ...more });
        for (const [look, text, ground] of [[light, [24, 24, 27], [250, 250, 250]], [dark, [250, 250, 250], [17, 17, 17]]]) {
          const got = contrast(parse(look.color, text), parse(look.background, ground));
          assert.ok(got >= LEAST_CONTRAST - 0.01, JSON.stringify({ fg, bg, more, look, got }));
        }
      }
    }
  }
  assert.deepEqual(readable([0, 0, 0], [255, 255, 255]), [0, 0, 0]);
});
