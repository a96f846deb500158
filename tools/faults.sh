#!/bin/sh
# Run the long version of every fault campaign. This takes about two hours. The results, one line of JSON per campaign,
# are written to faults.jsonl, or to the file given as an argument.
set -eu
cd "$(dirname "$0")/.."
. tools/environment.sh

use_environment dev,backends
results=${1:-faults.jsonl}
: >"$results"
failed=0

campaign() {
    script=$1
    shift
    echo "tests/faults/$script $*" >&2
    "$python" "tests/faults/$script" "$@" >>"$results" || failed=1
}

campaign fuzz_packs.py --inputs 100000
campaign fuzz_images.py --inputs 200000
campaign fault_packing.py --faults 1000 --runs 100
campaign fault_training.py --faults 400
campaign fault_remote.py --faults 400
campaign soak.py --minutes 30
cat "$results"
exit $failed
