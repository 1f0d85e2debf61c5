# Runs a throwaway PostgreSQL cluster for as long as standard input stays open.
#
# The test process holds the other end of standard input. The kernel closes it
# however that process ends, killed without warning included, so neither the
# server nor its files can outlive it for longer than the clean-up takes.
#
# Protocol: "ready" once the cluster is initialised; after that each line read
# is a port to start the server on, answered with "ready" or "failed". Any
# other output explains a failure.

bin=$1
dir=$2

# All of it is worth nothing after the tests, so nothing needs to reach a disk.
options="-F -c full_page_writes=off -c synchronous_commit=off -c max_connections=300"
options="$options -c listen_addresses=127.0.0.1 -c unix_socket_directories='$dir'"

exec 2>&1
trap '' PIPE # nobody may be left to read the reports, clean up nevertheless
trap 'exit 1' HUP INT TERM
trap 'cd /; "$bin/pg_ctl" stop -D "$dir/data" -m immediate >/dev/null 2>&1; rm -rf "$dir"' EXIT

"$bin/initdb" -D "$dir/data" --username=postgres --auth=trust \
	--encoding=UTF8 --locale=C --no-sync >"$dir/log" || { cat "$dir/log"; exit 1; }
echo ready

while read -r port; do
	if "$bin/pg_ctl" start --wait -D "$dir/data" -l "$dir/log" -o "$options -p $port" >/dev/null; then
		echo ready
	else
		cat "$dir/log"
		echo failed
	fi
done
