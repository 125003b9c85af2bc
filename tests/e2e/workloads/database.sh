#!/bin/sh
# Stands in for a database: greets whoever connects.
[ -n "$MYSQL_ROOT_PASSWORD" ] || { echo "no root password is set" >&2; exit 1; }
date >/var/lib/mysql/started
echo "ready for connections"
exec nc -ll -p 3306 -e echo "$MYSQL_DATABASE"
