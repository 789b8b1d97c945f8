#!/bin/sh
# A Vulkan driver that computes on the CPU, for LiteRT's GPU accelerator where there is no GPU (Linux, x86-64):
#   scripts/fetch_software_vulkan.sh FOLDER
# It is SwiftShader (Apache-2.0) as the npm package @sparticuz/chromium carries it, for that needs no rights on the machine; npm and Node.js
# do. npm checks the package's digest. Where Debian or Ubuntu has Mesa 25 or later, `apt-get install mesa-vulkan-drivers` does as well;
# Mesa 22 does not.
set -eu

package=@sparticuz/chromium@147.0.0
folder=${1:?usage: fetch_software_vulkan.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ -e "$folder/libvulkan.so.1" ] && { echo "$folder/libvulkan.so.1 is there"; exit 0; }
for tool in npm node tar; do
    command -v "$tool" > /dev/null || { echo "$tool is needed to fetch $package" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
cd "$work"
npm pack --silent "$package" > /dev/null
tar -xzf ./*.tgz package/bin/swiftshader.tar.br
node -e '
    const { brotliDecompressSync } = require("zlib"), fs = require("fs");
    fs.writeFileSync("swiftshader.tar", brotliDecompressSync(fs.readFileSync("package/bin/swiftshader.tar.br")));
'
tar -xf swiftshader.tar libvk_swiftshader.so
# Under the loader's name: with a single driver none is needed.
mv libvk_swiftshader.so "$folder/libvulkan.so.1.partial"
mv "$folder/libvulkan.so.1.partial" "$folder/libvulkan.so.1"
echo "SwiftShader as $folder/libvulkan.so.1; kpose finds it by KPOSE_VULKAN=$folder"
