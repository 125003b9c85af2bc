#!/bin/sh
# Stands in for the applications: answers on the port that theirs answers on, at every path.
mkdir -p /tmp/www /tmp/cgi
echo "version $VERSION" >/tmp/www/index.html
for path in health ready; do echo "$path ok" >/tmp/www/$path; done
echo "listening in version $VERSION"
httpd -f -p "${PORT:-3000}" -h /tmp/www &
# The first process of a container is not ended by signals that it does not expect.
trap 'kill $!' TERM
wait
