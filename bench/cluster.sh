# Runs a throwaway PostgreSQL cluster for as long as standard input stays open, which the kernel closes however the
# process at the other end ends. Arguments: the port. The settings are PostgreSQL's own, as those of a server that is
# trusted with data: fsync, synchronous_commit, full_page_writes and autovacuum are on.

trap '' INT PIPE # a Ctrl-C is for the other end
port=$1
for bin in "" /usr/lib/postgresql/*/bin/ /usr/pgsql-*/bin/ /opt/homebrew/opt/postgresql*/bin/ /usr/local/opt/postgresql*/bin/; do
	command -v "${bin}initdb" >/dev/null && command -v "${bin}pg_ctl" >/dev/null && found=$bin
done
[ -n "${found+x}" ] || { echo "no initdb and pg_ctl in PATH or the usual places"; exit 1; }

dir=$(mktemp -d) || exit 1
trap 'cd /; "${found}pg_ctl" stop -D "$dir/data" -m immediate >/dev/null 2>&1; rm -rf "$dir"' EXIT
cd "$dir" || exit 1

"${found}initdb" -D data --username=postgres --auth=trust --encoding=UTF8 --locale=C >log 2>&1 &&
	"${found}pg_ctl" start --wait -D data -l log >/dev/null \
		-o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='$dir'" || { cat log; exit 1; }
echo ready
read -r _
exit 0
