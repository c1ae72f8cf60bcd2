#!/usr/bin/env bash
# Makes each expectation of the test vectors wrong, one after another, and looks whether a test sees it.
#
#     bash tests/mutate-vectors.sh [SET...]
#
# Each wrong expectation stands in a copy of tests/vectors, which the tests read by way of TEST_VECTORS. Only the tests that
# read the set run, from binaries that were built once. Each set is also read without its last row. Prints how many
# expectations of each set were seen to be wrong, and the survivors. tests/vectors/survivors.txt gives the reason of each
# survivor. Fails if one has none, if a reason is out of date, or if of the others fewer than 97 of a hundred are killed.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Copies, so that a build beside this does not change them underway.
mkdir "$scratch/bin"
cargo test --locked --all-features --lib --test oauth2 --test decisions --test retry --test auth --no-run \
  --message-format=json 2>/dev/null |
  grep -o '"executable":"[^"]*"' | cut -d'"' -f4 | sort -u | xargs -I{} cp {} "$scratch/bin"

python3 - "$scratch" "$@" <<'PY'
import concurrent.futures, json, os, pathlib, re, shutil, subprocess, sys, threading

scratch, sets = pathlib.Path(sys.argv[1]), sys.argv[2:]
vectors = pathlib.Path("tests/vectors")
here = json.loads((vectors / "here.json").read_text())["rows"]
names = sorted(file.stem for file in vectors.glob("*.json") if file.stem != "here")
lines = (vectors / "survivors.txt").read_text().splitlines()
reasons = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)


def effective(row):
    """The row with the one expectation that this crate has to meet."""
    row = {name: value for name, value in row.items() if name != "alternatives"} | {
        "others": row.get("alternatives", [])
    }
    differs = here.get(row["id"], {})
    if "alternative" in differs:
        row["expect"] = row["others"][differs["alternative"] - 1]
    elif differs:
        row["expect"] = differs["expect"]
    del row["others"]
    return row


documents = {name: json.loads((vectors / f"{name}.json").read_text()) for name in names}
for document in documents.values():
    document["vectors"] = [effective(row) for row in document["vectors"]]


def leaves(value, path=()):
    if isinstance(value, (list, dict)):
        for key, inner in enumerate(value) if isinstance(value, list) else value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


def wrong(value, name):
    match value:
        case bool():
            return not value
        # A bound that nothing reaches: one that is only a little higher might be met as well.
        case int() if name in ("at_least", "any_string_min_len"):
            return 2**64 - 1
        case int() | float():
            return value + 7
        case str():
            return value + "~"
        case None:
            return "not null"


def with_wrong(document, row, path):
    document = json.loads(json.dumps(document))
    place = document["vectors"][row]["expect"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = wrong(place[path[-1]], path[-1])
    return document


local = threading.local()


def folder():
    """A folder of this thread's own with the vectors as they are to be met."""
    if not hasattr(local, "folder"):
        local.folder = scratch / f"vectors-{threading.get_ident()}"
        local.folder.mkdir()
        (local.folder / "here.json").write_text('{"rows": {}}')
        for name in names:
            (local.folder / f"{name}.json").write_text(json.dumps(documents[name]))
    return local.folder


def failing(tests, name, document):
    """Those of the tests that fail if this is the document of a set."""
    file = folder() / f"{name}.json"
    file.write_text(json.dumps(document))
    environment = os.environ | {"TEST_VECTORS": str(folder()), "RUST_BACKTRACE": "0"}
    failed = []
    for binary in {binary for binary, _ in tests}:
        own = [test for other, test in tests if other == binary]
        ran = subprocess.run([binary, "--exact", *own], capture_output=True, text=True, timeout=120, env=environment)
        failed += [(binary, test) for test in own if f"test {test} ... FAILED" in ran.stdout]
    file.write_text(json.dumps(documents[name]))
    return failed


every = []
for binary in sorted((scratch / "bin").iterdir()):
    listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^(\S*(?:vector|row)\S*): test$", listed, re.MULTILINE)
    every += [(str(binary), test) for test in found]
pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
broken = failing(every, names[0], documents[names[0]])
if broken:
    sys.exit(f"the tests of the vectors fail as they are: {sorted(test for _, test in broken)}")
# A test reads the sets without which it fails.
readers = dict(zip(names, pool.map(lambda name: failing(every, name, {}), names)))


def survives(mutant):
    name, row, path = mutant
    return not failing(readers[name], name, with_wrong(documents[name], row, path))


def survives_shorter(name):
    document = documents[name] | {"vectors": documents[name]["vectors"][:-1]}
    return not failing(readers[name], name, document)


killed = total = explained = unexplained = 0
used = set()
for name in sets or names:
    rows = documents[name]["vectors"]
    mutants = [(name, at, path) for at, row in enumerate(rows) for path in leaves(row["expect"])]
    dead = 0
    for (_, at, path), survived in zip(mutants, pool.map(survives, mutants)):
        if not survived:
            dead += 1
            continue
        at_path = "/".join(map(str, ("expect", *path)))
        # A reason is for one row, or for a member of all rows of a set.
        one = f"{name} {rows[at]['id']} {at_path}"
        all_rows = re.sub(r"/\d+/", "/N/", f"{name} * {at_path}")
        if one in reasons or all_rows in reasons:
            explained += 1
            used |= {one, all_rows} & reasons.keys()
        else:
            unexplained += 1
            print("survived:", one)
    if survives_shorter(name):
        unexplained += 1
        print(f"survived: {name} without its last row")
    print(f"{name}: killed {dead} of {len(mutants)}", flush=True)
    killed, total = killed + dead, total + len(mutants)

stale = [] if sets else sorted(reasons.keys() - used)
for reason in stale:
    print("a reason without a survivor:", reason)
print(f"vectors: killed={killed} of={total} survivors with a reason={explained}, without={unexplained}")
sys.exit(bool(unexplained or stale or killed * 100 < (total - explained) * 97))
PY
