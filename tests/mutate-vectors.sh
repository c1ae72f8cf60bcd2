#!/usr/bin/env bash
# Reads each expectation of the test vectors as another one, one after another, and looks whether a test sees it.
#
#     bash tests/mutate-vectors.sh [SET...]
#
# Prints the survivors and how many were killed of each set. tests/vectors/survivors.txt gives the reason of each survivor:
# what this crate does not do, or does otherwise by policy. Fails if one has none, or if of the expectations that are not
# listed there fewer than 97 of a hundred are killed.
set -euo pipefail
export RUST_BACKTRACE=0
cd "$(dirname "$0")/.."

sets=("$@")
if [ ${#sets[@]} -eq 0 ]; then
  for file in tests/vectors/*.json; do sets+=("$(basename "$file" .json)"); done
fi

# Copies, so that a build beside this does not change them underway.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo test --all-features --lib --test oauth2 --test decisions --no-run --message-format=json 2>/dev/null |
  grep -o '"executable":"[^"]*"' | cut -d'"' -f4 | sort -u | xargs -I{} cp {} "$scratch"
binaries=$(ls "$scratch"/*)
log=$scratch/log
reasons=tests/vectors/survivors.txt
killed=0 all=0 explained=0 unexplained=0

# Runs the tests of the vectors. Succeeds if all pass, so that nobody has seen the change.
survives() {
  local binary
  for binary in $binaries; do
    if ! MUTATED_VECTOR="$1" timeout 60 "$binary" vector --nocapture >"$log" 2>&1; then return 1; fi
  done
}

survives none:0 || { echo "the tests of the vectors fail as they are"; cat "$log"; exit 1; }

for set in "${sets[@]}"; do
  leaves=$(python3 - "tests/vectors/$set.json" <<'PY'
import json, sys
def leaves(value):
    if isinstance(value, list): return sum(map(leaves, value))
    if isinstance(value, dict): return sum(map(leaves, value.values()))
    return 1
print(sum(leaves(vector["expect"]) for vector in json.load(open(sys.argv[1]))["vectors"]))
PY
)
  dead=0
  for ((leaf = 0; leaf < leaves; leaf++)); do
    if survives "$set:$leaf"; then
      which=$(for binary in $binaries; do
        MUTATED_VECTOR="$set:$leaf" "$binary" vector --nocapture 2>/dev/null | grep -o 'mutated: .* is ' | head -1 || true
      done | head -1 | sed 's/^mutated: //; s/ is $//')
      which="$set ${which:-leaf $leaf, which no test reads}"
      # A reason is for one row, or for a member of all rows of a set.
      member=$(echo "$which" | sed 's/"[^"]*"/*/; s#/[0-9][0-9]*/#/N/#g')
      if grep -qF -e "$which:" -e "$member:" "$reasons"; then
        explained=$((explained + 1))
      else
        unexplained=$((unexplained + 1))
        echo "survived: $which"
      fi
    else
      dead=$((dead + 1))
    fi
  done
  echo "$set: killed $dead of $leaves"
  killed=$((killed + dead)) all=$((all + leaves))
done

echo "vectors: killed=$killed of=$all survivors with a reason=$explained, without=$unexplained"
[ "$unexplained" -eq 0 ] && [ $((killed * 100)) -ge $(((all - explained) * 97)) ]
