#!/bin/sh
# Pack image folders, and train a small network on the pack. The images are made by this script, or are your own.
#
#   sh tools/quickstart.sh            makes pictures in quickstart/images
#   sh tools/quickstart.sh DIR...     folders of class folders, or class folders
set -eu
called_from=$PWD
cd "$(dirname "$0")/.."
. tools/environment.sh

use_environment tensorflow,plot
project=$PWD
mkdir -p quickstart
if [ $# -eq 0 ]; then
    "$project/$python" tools/make_images.py quickstart/images --count 2000
    set -- quickstart/images/*
else
    cd "$called_from"
fi
"$project/.venv/bin/pack-images" "$@" -o "$project/quickstart/images.h5" --size 64
"$project/$python" "$project/tools/train_eurosat.py" "$project/quickstart/images.h5" --epochs 5 --learning-rate 0.001 \
    --output "$project/quickstart"
