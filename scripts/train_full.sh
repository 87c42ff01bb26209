#!/usr/bin/env bash
# Trains within a time budget in the background, measures the result once and packs it, on a machine without a network.
set -euo pipefail
usage='Usage: bash scripts/train_full.sh MINUTES [FILE.yml [KEY=VALUE ...]]   train in the background, then measure, pack
       bash scripts/train_full.sh status [SECONDS]                     wait, but not beyond the end; say how it goes
       bash scripts/train_full.sh stop                                 save now, then measure and pack
MINUTES are those of training; about two more go into measuring on eval15. FILE.yml is options/train_lol_full.yml unless
given, KEY=VALUE as for --force_yml. The run is experiments/full, its log results/full/log.txt. results/full.tar.00, .01
and so on, 15 MB each, bring home weights, tables, curves and log, those of the newest checkpoint as long as it runs:
cat full.tar.* | tar x
It needs datasets/LOL, and takes build/wheels and datasets/alexnet.pth (the trunk of LPIPS) where they are, as
scripts/pack.sh packs them.'
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run=experiments/full out=results/full
export PYTHONPATH="$PWD:$PWD/build/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python=$(command -v python3)

install_wheels() { # those that the machine does not have
    [ -d build/wheels ] || return 0
    local missing
    missing=$("$python" -c '
import glob, importlib.metadata as metadata
for wheel in glob.glob("build/wheels/*.whl"):
    try:
        metadata.distribution(wheel.split("/")[-1].split("-")[0])
    except metadata.PackageNotFoundError:
        print(wheel)')
    [ -z "$missing" ] || "$python" -m pip install -q --no-index --no-deps --no-compile --target build/site $missing
}

pack() { # under another name first: what lies there is complete
    local files=("$out")
    [ ! -f $run/full.safetensors ] || files+=($run/full.safetensors)
    rm -rf results/parts
    mkdir results/parts
    tar c --exclude=cache --exclude=pid "${files[@]}" | split -b 15000000 -d - results/parts/full.tar.
    rm -f results/full.tar.*
    mv results/parts/* results
    rmdir results/parts
}

work() {
    local minutes=$1 opt=$2 code=0 trainer lpips=(--lpips none)
    shift 2
    "$python" scripts/train_within.py "$minutes" -opt "$opt" --force_yml name=full val:pbar=false "$@" &
    trainer=$!
    trap 'kill $trainer' TERM
    while sleep 1 && kill -0 $trainer 2>/dev/null; do
        if [ $run/full.safetensors -nt results/full.tar.00 ]; then pack; fi
    done
    wait $trainer || code=$?
    if [ -f $run/full.safetensors ]; then
        [ ! -f datasets/alexnet.pth ] || lpips=(--lpips-trunk datasets/alexnet.pth)
        # On the CPU, in fp32, where every machine prints the same figures.
        "$python" -m lowlight_cyclegan.cli evaluate --method full=$run/full.safetensors --device cpu "${lpips[@]}" \
            --data eval15=datasets/LOL/eval15/low:datasets/LOL/eval15/high --output $out/eval15 --no-figures || code=$?
        "$python" scripts/draft_card.py $run $out "$opt" "$@" || code=$?
        pack
    fi
    echo "Finished with code $code."
}

working() {
    [ -f $out/pid ] && kill -0 "$(cat $out/pid)" 2>/dev/null
}

status() {
    local end=$((SECONDS + ${1:-0}))
    while working && ((SECONDS < end)); do sleep 1; done
    grep -a 'images a second' $out/log.txt || true
    awk '/of batch/ { sub(/.*of batch /, ""); batch = $1 }
        /\[eta:/ { line = $0 }
        END {
            if (line == "") exit
            iteration = eta = line
            sub(/.*iter: */, "", iteration); sub(/, lr.*/, "", iteration)
            sub(/.*eta: /, "", eta); sub(/, time.*/, "", eta)
            sub(/.*time \(data\): /, "", line); seconds = line + 0
            sub(/.*\) *\] */, "", line)
            printf "iteration %s, %.1f images a second, eta %s, %s\n", iteration, batch / seconds, eta, line
        }' $out/log.txt
    grep -a -A 4 'INFO: Validation' $out/log.txt | grep -aE '^\s+# |Validation' | tail -n 4 || true
    ! command -v nvidia-smi >/dev/null || nvidia-smi --query-gpu=name,memory.used,utilization.gpu --format=csv,noheader
    tail -n 2 $out/log.txt
    working || grep -q '^Finished with code' $out/log.txt || echo 'The run is gone: something killed it.'
    ls -l results/full.tar.* 2>/dev/null || true
}

case ${1:-} in
-h | --help) echo "$usage" ;;
status)
    [ -f $out/log.txt ] || { echo "No run: $out/log.txt is missing." >&2; exit 1; }
    status "${2:-0}"
    ;;
stop)
    working || { echo 'Nothing is being trained.' >&2; exit 1; }
    kill "$(cat $out/pid)"
    ;;
work)
    work "${@:2}"
    exit # this file may be written anew while it works
    ;;
*)
    [[ ${1:-} =~ ^[0-9.]+$ ]] || { echo "$usage" >&2; exit 2; }
    for folder in $run $out; do
        [ ! -e $folder ] || { echo "$folder: exists, move it away" >&2; exit 1; }
    done
    [ -d datasets/LOL/eval15 ] || { echo 'datasets/LOL: holds no eval15' >&2; exit 1; }
    install_wheels
    mkdir -p $out
    rm -f results/full.tar.*
    # A session of its own: it goes on when this shell ends.
    setsid bash scripts/train_full.sh work "$1" "${2:-options/train_lol_full.yml}" "${@:3}" >$out/log.txt 2>&1 <&- &
    echo $! >$out/pid
    echo "Started; bash scripts/train_full.sh status says how it goes."
    ;;
esac
