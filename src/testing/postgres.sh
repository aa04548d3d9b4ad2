# Keeps one PostgreSQL server for a test process: makes it, starts and stops it as told on stdin, and
# takes it away when stdin ends, which it does however that process ends, kill -9 included.
#
#   sh postgres.sh FOLDER-OF-PROGRAMS FOLDER-FOR-DATA
#
# Answers each line it is told with one line: `ok`, or `failed` and what PostgreSQL said last.
bin=$1
folder=$(mktemp -d "$2/leasehold-postgres.XXXXXX" 2>/dev/null || mktemp -d /tmp/leasehold-postgres.XXXXXX) || {
    echo "failed: no folder can be made in $2"
    exit 1
}
data=$folder/data
log=$folder/log

answer() {
    if [ "$1" -eq 0 ]; then
        echo ok
    else
        echo "failed: $(tail -n 3 "$log" | tr '\n' ' ')"
    fi
}

stop() { "$bin/pg_ctl" -D "$data" -m "$1" -w stop >>"$log" 2>&1; }

leave() {
    stop immediate
    rm -rf "$folder"
    exit
}
trap leave TERM HUP
trap '' INT

# Superusers come by the socket in this folder, which is for its user alone: over TCP anyone on the
# machine could run programs as that user.
"$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$log" 2>&1 &&
    cat >"$data/pg_hba.conf" <<RULES &&
local all postgres trust
host all leasehold 127.0.0.1/32 trust
host all guarded 127.0.0.1/32 scram-sha-256
RULES
    cat >>"$data/postgresql.conf" <<SETTINGS
listen_addresses = '127.0.0.1'
unix_socket_directories = '$folder'
max_connections = 200
SETTINGS
answer $?
echo "$folder"

while read -r order argument; do
    case $order in
    set)
        printf '%s\n' "$argument" >>"$data/postgresql.conf"
        answer $?
        ;;
    start)
        "$bin/pg_ctl" -D "$data" -l "$log" -o "-p $argument" -w start >>"$log" 2>&1
        answer $?
        ;;
    stop)
        stop "$argument"
        answer $?
        ;;
    *) echo "failed: what is $order?" ;;
    esac
done
leave
