#!/usr/bin/env bash
# Writes a container image (an OCI archive) around the static busybox of Debian's package.
#
#   image.sh NAME FILE [VERSION] [SCRIPT]
#
# NAME is the image's reference, for example docker.io/library/hello:1.0; the image's
# environment has VERSION (default 1.0). What a container runs that is not told otherwise is
# SCRIPT, or a shell. No registry, no container tool is needed.
set -euo pipefail

name=${1:?usage: image.sh NAME FILE [VERSION]}
file=${2:?usage: image.sh NAME FILE [VERSION]}
version=${3:-1.0}
script=${4:-}
busybox=$(command -v busybox) || { echo "image.sh: no busybox on the PATH: apt-get install busybox-static" >&2; exit 1; }

case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) architecture=$(uname -m) ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root blobs=$work/image/blobs/sha256
mkdir -p "$root"/{bin,etc,home,proc,root,sys,tmp,var/www} "$blobs"
chmod 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"

command='"sh"'
if [ -n "$script" ]; then
  install -m 755 "$script" "$root/bin/start"
  command='"start"'
fi

layer=$work/layer.tar
tar --create --file "$layer" --directory "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .

# Puts a file among the blobs and prints its digest.
blob() {
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$blobs/$digest"
  echo "$digest"
}
size() { stat --format=%s "$blobs/$1"; }

layer_digest=$(blob "$layer")
cat >"$work/config.json" <<JSON
{"architecture":"$architecture","os":"linux",
 "config":{"Env":["PATH=/bin","VERSION=$version"],"Cmd":[$command],"WorkingDir":"/"},
 "rootfs":{"type":"layers","diff_ids":["sha256:$layer_digest"]}}
JSON
config_digest=$(blob "$work/config.json")
cat >"$work/manifest.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
 "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config_digest","size":$(size "$config_digest")},
 "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:$layer_digest","size":$(size "$layer_digest")}]}
JSON
manifest_digest=$(blob "$work/manifest.json")
cat >"$work/image/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",
 "manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest_digest","size":$(size "$manifest_digest"),
  "platform":{"architecture":"$architecture","os":"linux"},
  "annotations":{"io.containerd.image.name":"$name","org.opencontainers.image.ref.name":"${name##*:}"}}]}
JSON
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
tar --create --file "$file" --directory "$work/image" --sort=name --owner=0 --group=0 --numeric-owner .
