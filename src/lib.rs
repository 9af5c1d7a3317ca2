//! mcp-launch: init, launcher and supervisor for Python web servers.
//!
//! # Theory of operation
//!
//! Data flows one way: **argv, environment, file → settings → (with host facts) plan → run**. Everything up to the
//! plan is plain data made from plain data, and tested without starting a process.
//!
//! - [`settings`] has the one table of options. [`cli`] and [`docs`] are made from it; the layers are merged so that
//!   each value keeps where it came from and what it shadows, and all that is wrong is reported together.
//! - [`host`] looks at the machine, once: cores, quotas, memory, interpreter, installed versions. It starts nothing.
//! - [`plan`] turns both into the server, the number of workers, argv and environment, with a reason for each
//!   decision, or into a list of problems.
//! - [`run`] becomes the server, or stays with it.
//! - [`control`] is how a running launcher is asked, from both ends.
//! - [`compare`] runs this program itself, with each server in turn, and measures.
//! - [`commands`] is what the user asks for by name: each strings the above together.
//!
//! ## Signals from the first instruction on
//!
//! A constructor blocks every signal before `main` (`sys/entry.rs`) and notes the mask and dispositions that we
//! were started with. As PID 1 a signal that is neither blocked nor caught is dropped by the kernel; blocked, it
//! waits. The handlers are installed when there is a supervisor to tell, and then the mask is opened. The plain
//! init, which forwards every signal, leaves them blocked and reads them from a descriptor. Between fork
//! and exec everything is blocked again, so that nobody's handler runs in the child, and the child gets back exactly
//! the signal state that it would have had without us.
//!
//! ## Before the first generation
//!
//! Commands that must succeed first ([`run::prestart`]) run when port and lock are ours and before there is a
//! supervisor, each to its end, and nothing that it started outlives it. Only signals that mean a stop are read
//! meanwhile; the others stay blocked and reach the supervisor, so that a reload asked for then comes after the start.
//! The control socket is there already: who asks is told that we are not ready, and live.
//!
//! ## Generations
//!
//! A generation is one server, its main process and all that descends from it, started from one plan. Every
//! transition is "start a generation, wait until it is ready, retire the old one": the first start, a reload, the
//! replacement of a main process that died while its workers serve on. There are at most two generations. The rules
//! are a pure state machine ([`supervisor::machine`]): events and the time go in, actions come out, and property
//! tests run years of its life in a second. Around it is a loop of one thread and one `poll`, which carries out what
//! the machine says and never fails after the first process was started.
//!
//! A generation that retires does so by a timetable ([`run::stop_sequence`]): it lingers while new clients are
//! sent to its successor already, its main process gets TERM, then what is left gets TERM, then KILL, all within the
//! stop budget. The end of the launcher is the same timetable for everything at once.
//!
//! ## Where clients arrive
//!
//! [`run::listener`] holds the port for as long as we live. A Gunicorn generation inherits its listening socket from
//! us, one for each generation, in one group that shares the port (`SO_REUSEPORT`). A classic BPF program on the
//! group says who gets new connections, so a newcomer gets none before it is ready, and the old one gets none while
//! it finishes what it has. When nothing serves, clients wait in the queue of the socket that we keep. Granian's
//! workers listen for themselves in the same group; a copy of one of their sockets serves to steer, which we take where
//! the kernel lets us, and which the guard lends us otherwise, unless workers are spawned and inherit nothing
//! (`run/supervise/handover.rs` tells the order in which members change their numbers, on which all this rests). Generations on a Unix socket bind a name of their own, which
//! is renamed to the one that clients know.
//!
//! ## When memory is short
//!
//! Before a generation is started beside one that serves, the memory is measured: on every level of the cgroup path
//! that has a limit, what is free (page cache that nobody uses counts as free) is compared with what the old one
//! takes, and with what a generation of one worker would ([`supervisor::machine::memory_budget`]). Without room for a whole
//! generation the newcomer begins with one worker, and nothing is taken from the old one before that worker is
//! ready. Without room for that, a reload is refused: trying would have the kernel kill something. As numbers can be
//! wrong (a release may be bigger than the one before), every newcomer stands first in line for the OOM killer until
//! it is ready.
//!
//! Gunicorn is then replaced worker by worker ([`supervisor::machine::replacement`]): TTOU to the old main process, and when
//! that worker's process is gone, TTIN to the new one. There are never fewer workers than before, and never more
//! than one more. Both generations serve meanwhile, each on its socket, and the BPF program of the group deals new
//! clients out in proportion to their workers. All to the new one would bury its first worker under the load of
//! all, and the kernel's hash, which gives every socket the same, would do nearly that. One thing needs more: a
//! worker that is told to leave closes connections that it has accepted and not heard from yet. So before each TTOU
//! new clients go to the new generation alone for as long as any retiring generation lingers, and until the worker
//! no longer waits for clients (its epoll sets tell). If the new generation fails in between, the old one gets its
//! workers back, when the memory of the other is free.
//!
//! One worker that takes over and is then followed by a full generation would be simpler: two ordinary handovers.
//! But one worker would have to carry the whole load for as long as the old generation finishes its last requests
//! and the new one boots, half a minute and more for a large app. It is what is done where there is no better way:
//! for Granian, which cannot be told to change its number, for a change of server, on a Unix socket, where only one
//! generation at a time can have the path, and for workers that lost their main process. Gunicorn is told by TTIN to
//! start the others then, Granian is followed by a full generation of the same plan; if that fails it is tried again
//! for ever, because something serves.
//!
//! ## Readiness
//!
//! Gunicorn gets a second, private listening socket: whoever answers there is this generation, whoever else serves
//! the port. One request waits in it until a worker answers. Granian is ready when its workers listen, and, when
//! nobody else could answer, one request gets an answer below 500.
//!
//! ## Certificates and keys
//!
//! They are read and judged when a plan is made ([`tls`]), so that a renewal that is broken is a reload that is
//! refused. A generation serves with the copy that its plan has of them: one file with the chain and the key, which is
//! made in the clear form that both servers read and is never on a disk ([`run::memfd::credentials`]). A worker that is
//! replaced later has what the others have, whatever the files have become meanwhile.
//!
//! Gunicorn inherits it as a memory file, and its main process makes one context of it for all workers
//! (`plan/gunicorn/tls.py`): there is no other way to have the oldest version that is accepted hold for uvicorn's
//! workers, and workers need not open a file that they may not read. Granian resolves the path that it is given, and
//! each worker reads it: it gets a file in a file system in memory, removed with the generation.
//!
//! Whoever watches the files ([`supervisor::certificates::file_watch`]) lets the kernel tell, looks when the writer is through, and asks
//! for a reload when what is there fits together.
//!
//! Our own requests ([`probe`]) are a state machine over bytes, for whoever moves them: HTTP/1 or HTTP/2, in clear or
//! over TLS. They take any certificate, and a server that wants one of ours is a server that answers.
//!
//! ## The guard
//!
//! Inside each worker is a piece of Python of ours, [`guard`], which the server imports in place of the app. It calls
//! the app for each request, counts those that are being worked on, and answers 503 itself when there are as many as
//! a worker may have. Its constants are part of its text, and it travels with Gunicorn's generated configuration in an
//! archive in a memory file, found through `PYTHONPATH`; the first of these modules to be imported takes the entry away
//! and reads the others ahead (`plan/modules.py`), so the app never sees it, and workers that have changed their user
//! need not open it. The entry names the main process by its number, because a worker that is spawned and not forked
//! has another `/proc/self`.
//!
//! It imports the app in the moment in which the server would have, through the server's own function: the same forms
//! of APP, the same errors and exit statuses, and with preloading in the same process. Everything else begins with the
//! first call, which is after the fork. Then the worker takes a slot on the scoreboard of its generation
//! ([`guard::scoreboard`]), a memory file too, and writes there with plain stores how it is; a timer in its event loop
//! proves again and again that the loop turns. The slot is the worker's by a record lock, which no end of the process
//! can leave behind. The same timer sees when launcher and main process are both gone, and ends the worker.
//!
//! A request counts until the app's coroutine has ended, however it ends; a stream until its response has begun, a
//! web socket until it is accepted. Nothing is awaited between counting and calling, so that no cancellation can come
//! between.
//!
//! With it a generation is ready when it answers and all workers that can say so have said that they are. Afterwards
//! we wake up only when the oldest heartbeat would come of age. Whoever is silent for that long is a suspect, and is
//! convicted only after we ourselves have been awake for a while: a machine that was paused has no hung workers
//! (`run/supervise/liveness.rs` has the rules).
//!
//! Limits of memory and age are kept in the same way on both servers (`run/supervise/limits.rs` has the rules): one
//! worker at a time is told to leave, while all others are ready, and its main process starts another. An only worker
//! is replaced with its generation.
//!
//! ## Workers
//!
//! They are the servers' own to start and to replace. We hold a pidfd of each, so that its end wakes the loop and its
//! cause can be had ([`supervisor::workers`]): from the zombie, or from the kernel once it was reaped, or from the cgroup's
//! count of kills for lack of memory. New ones are looked for when something happened, never because time has passed.
//!
//! ## Being asked
//!
//! Clients of the control socket and of the metrics are part of the same `poll`. Each is a state machine over bytes
//! with a bound on length and time, and there is a bound on their number: when a newcomer has no place, the client
//! goes that has kept us waiting longest.
//!
//! A service manager is told by datagrams that never wait ([`run::notify`]): that we are ready, reload or stop. Where
//! our own settings bound how long that takes, it is asked for as much time, so that its limit need not be known here
//! nor ours there. Its watchdog is fed by the loop itself, so it bites if the loop hangs.
//!
//! ## What is ours to end
//!
//! We are a subreaper (or PID 1), so whatever loses its parent becomes our child, and having no children means
//! having no descendants. Processes are signalled through a pidfd and only if number and start time are those that
//! were meant. If we are killed, the main process gets TERM from the kernel.
//!
//! ## The log
//!
//! Lines go through a bounded queue to one thread that writes them; when nobody reads they are dropped and counted.
//! Nothing else in a launcher is a thread.

pub mod cli;
pub mod commands;
mod compare;
mod control;
pub mod docs;
pub mod guard;
pub mod host;
mod ids;
pub mod log;
pub mod plan;
mod probe;
pub mod problem;
mod proc;
mod report;
pub mod run;
pub mod settings;
mod supervisor;
pub mod sys;
pub mod tls;
