// What is in a job's outputs, whatever it is, becomes bounded text, rows and trees.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parseDelimited } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/outputs/delimited.js";
import { parseJson, treeRows } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/outputs/json_rows.js";
import { shortened, visible, whyNot } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/outputs/names.js";

test("every character of a name can be seen", () => {
  assert.equal(visible("rtl\u202etxt.exe"), "rtl\\u202etxt.exe");
  assert.equal(visible("a\nb\0\u200b\ud800c"), "a\\u000ab\\u0000\\u200b\\ud800c");
  assert.equal(visible("größe 🚀 <b>"), "größe 🚀 <b>");
  assert.equal(visible(undefined), "");
});

test("a long name keeps its ends", () => {
  assert.equal(shortened("short.txt"), "short.txt");
  const name = shortened(`${"🚀".repeat(5000)}.csv`, 20);
  assert.equal([...name].length, 20);
  assert.ok(name.endsWith("🚀.csv") && name.startsWith("🚀"));
});

test("why an output cannot be read", () => {
  assert.equal(whyNot({ kind: "file" }), "");
  assert.match(whyNot({ kind: "outside", target: "/etc/\u202epasswd" }), /link to \/etc\/\\u202epasswd/);
  assert.match(whyNot({ kind: "new" }), /unknown kind: new/);
});

test("tables", () => {
  assert.deepEqual(parseDelimited('a,b\r\n1,"x, ""y""\nz"\n\n3,').rows, [["a", "b"], ["1", 'x, "y"\nz'], ["", ""], ["3", ""]]);
  assert.deepEqual(parseDelimited("a;b\n1;2").rows, [["a", "b"], ["1", "2"]]);
  assert.deepEqual(parseDelimited('a\t"unclosed\n1\t2').rows, [["a", "unclosed\n1\t2"]]);
  assert.deepEqual(parseDelimited("").rows, []);
  assert.deepEqual(parseDelimited(",\n,").rows, [["", ""], ["", ""]]);
});

test("a table has limits", () => {
  const wide = parseDelimited(`${Array.from({ length: 10_000 }, (_, at) => at).join(",")}\n${"1,".repeat(9_999)}2\n`);
  assert.equal(wide.columns, 10_000);
  assert.equal(wide.rows[0].length, 60);
  assert.equal(wide.rows.length, 2);
  const long = parseDelimited("x\n".repeat(10_000));
  assert.deepEqual([long.rows.length, long.hasMore], [200, true]);
  assert.equal(parseDelimited("y".repeat(250_000)).rows[0][0].length, 301);
});

test("JSON as training code writes it", () => {
  assert.deepEqual(parseJson('{"a": NaN, "b": [-Infinity], "c": "NaN \\" Infinity"}').value, { a: "NaN", b: ["-Infinity"], c: 'NaN " Infinity' });
  assert.deepEqual(parseJson('{"a": 1}\n{"a": 2}\n{"a":', true).value, [{ a: 1 }, { a: 2 }]);
  assert.ok(parseJson("{").problem);
  assert.ok(parseJson("{", true).problem);
  assert.ok(parseJson("").problem);
});

test("a tree shows what is open, and not too much", () => {
  const value = { a: { "x/y": [1, "two"] }, b: null };
  assert.deepEqual(treeRows(value, new Set([""])).map(({ name, text, depth }) => [name, text, depth]), [["", "object of 2", 0], ["a", "object of 1", 1], ["b", "null", 1]]);
  const paths = treeRows(value, new Set(["", "/a", "/a/x~1y"])).map(({ path }) => path);
  assert.deepEqual(paths, ["", "/a", "/a/x~1y", "/a/x~1y/0", "/a/x~1y/1", "/b"]);
  const many = treeRows(Array.from({ length: 10_000 }, (_, at) => at), new Set([""]));
  assert.deepEqual([many.length, many.at(-1).text], [102, "and 9,900 more"]);
  const deep = JSON.parse("[".repeat(5000) + "]".repeat(5000));
  const everything = { has: () => true };
  assert.ok(treeRows(deep, everything).length < 100);
  assert.equal(treeRows("z".repeat(10_000), everything)[0].text.length, 501);
});
