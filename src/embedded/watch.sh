# Runs Postgres ("$@") until it ends or until our standard input closes, which is when the service that holds the
# other end is gone, however it went. Then Postgres gets SIGINT (fast shutdown) until it has ended.
exec 3<&0 </dev/null            # a background job's standard input would be /dev/null: keep the pipe as 3
trap '' INT TERM HUP            # what stops the service must not stop this before Postgres
"$@" 3<&- &
postgres=$!
(
    while read -r _ <&3; do :; done
    # Again and again: early in its start Postgres still ignores the signal, as it inherited.
    while kill -INT "$postgres"; do sleep 0.1; done
) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$postgres"
status=$?
kill -KILL "$watcher" 2>/dev/null  # it ignores the gentler signals
exit "$status"
