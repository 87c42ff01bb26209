#!/usr/bin/env bash
# Packs what training on a machine without a network takes into tar files small enough to be carried one by one.
set -euo pipefail
usage='Usage: bash scripts/pack.sh [-s MB] [-p PYTHON] [-w "NAME ..."] FILE|FOLDER ...
Writes the files and folders, named relative to this folder, and wheels for the other machine into build/parts/*.tar.
There, in a checkout of this repository, tar xf unpacks each part, in any order.
  -s MB      largest part, in millions of bytes. Default: 55
  -p PYTHON  version over there, on Linux and x86-64. Default: 3.12
  -w NAMES   Python packages missing there. Default: those that come with nothing but this project. torch, torchvision,
             OpenCV, tensorboard, matplotlib, scikit-image, rich and safetensors must be there, or be named.'
size=55 python=3.12
names='addict basicsr future lmdb lpips mmengine platformdirs shtab termcolor yapf'
[ "${1-}" != --help ] || set -- -h
while getopts 's:p:w:h' flag; do
    case $flag in
    s) size=$OPTARG ;;
    p) python=$OPTARG ;;
    w) names=$OPTARG ;;
    h) echo "$usage" && exit ;;
    *) echo "$usage" >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
if [ $# = 0 ]; then
    echo "$usage" >&2
    exit 2
fi
for path; do
    [ -e "$path" ] || { echo "$path: no such file or folder" >&2; exit 1; }
    [[ $path != /* && $path != *..* ]] || { echo "$path: give it relative to this folder, inside of it" >&2; exit 1; }
done

rm -rf build/wheels build/parts
mkdir -p build/wheels build/parts
platforms=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do # pip matches each exactly
    platforms+=(--platform "${platform}_x86_64")
done
for name in $names; do
    if [[ $name == basicsr* ]]; then # has no wheel; it is pure Python, so one made here will do
        python -m pip wheel -q --no-deps --no-build-isolation -w build/wheels "$name"
    else
        python -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version "$python" \
            "${platforms[@]}" -d build/wheels "$name"
    fi
done

# Each file goes to the part that is being filled, or to a new one; 1.5 kB of header and padding come on top.
find -L build/wheels "$@" -type f -printf '%s\t%p\n' | sort -k2 | awk -F '\t' -v limit="$((size * 1000000 - 20000))" '
    { bytes = $1 + 1536 }
    bytes > limit { print $2 ": is larger than a part" > "/dev/stderr"; exit 1 }
    used == 0 || used + bytes > limit { used = 0; list = sprintf("build/parts/%02d.list", count++) }
    { used += bytes; print $2 > list }'
for list in build/parts/*.list; do
    tar -chf "${list%.list}.tar" --no-recursion -T "$list"
    rm "$list"
done
ls -l build/parts | awk 'NR > 1 { printf "build/parts/%s  %.1f MB\n", $NF, $5 / 1e6 }'
