#!/bin/sh
# JUnit and Android's classes (API 23), for tests/tflite/test_android.py, without any rights on the machine (Debian and its kin):
#   scripts/fetch_android_classes.sh FOLDER
# apt checks the packages' digests and signatures.
set -eu

folder=${1:?usage: fetch_android_classes.sh FOLDER}
packages='junit4 libhamcrest-java android-sdk-platform-23 libandroid-23-java'
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ -e "$folder/usr/share/java/junit4.jar" ] && { echo "they are in $folder"; exit 0; }
for tool in apt-get dpkg-deb; do
    command -v "$tool" > /dev/null || { echo "$tool is needed to fetch $packages" >&2; exit 1; }
done

# A package list of its own: bookworm and trixie lack Android's classes.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/root"
: > "$work/status"
echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bullseye main' > "$work/sources.list"
set -- -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/lists" \
    -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User= -o Acquire::Languages=none
apt-get "$@" update
(cd "$work/debs" && apt-get "$@" download $packages)
for package in "$work"/debs/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done
cp -R "$work/root/." "$folder"
echo "JUnit and Android's classes in $folder; the tests find them by KPOSE_DEBIAN_ROOT=$folder"
