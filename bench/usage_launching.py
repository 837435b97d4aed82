"""Help texts of launchers and of the commands of a race by several workers.

Boundary: text only; completion reads the keys of a command from its text.
"""

from __future__ import annotations

LAUNCHER = """
  launcher=NAME           who makes the runs: local (default), ray, slurm, or a plug-in's; all
                          settings: timetrial list ray, timetrial list slurm, ...
  launcher.workers=N      number of workers (default: 1, for local this process; 0: one per GPU or
                          core, with ray one per free share of the cluster)
  launcher.gpus=N         GPUs of each worker     launcher.cpus=N   cores of each worker
  launcher.pool=NAME      pool of identical machines, for time budgets (timetrial pool)
  launcher.address=HOST:PORT    ray: the cluster (default: auto, this machine's)
  launcher.directory=DIR  ray: working directory on the nodes (default: this one)
  launcher.partition=, launcher.account=, launcher.qos=, launcher.constraint=,
  launcher.memory_gb=, launcher.exclusive=    slurm: as for sbatch
  launcher.hours=H        slurm: time limit of a job (default: 24); it is requeued, and goes on
  launcher.parallel=N     slurm: jobs that run at the same time (default: all)
  launcher.signal_seconds=S    slurm: time to save a run before the limit (default: 300)
  tracking.queue=URL      database of the workers' claims: postgresql://..., or sqlite:///PATH for
                          one machine (default: that of tracking.uri, or queue.db in the root)

Ctrl-C ends the workers, their runs saved; a second one kills them. With slurm, jobs go on when this
command is killed or its terminal is closed: the same command waits for the rest of the race, and
submits workers again; those without work end at once.
"""

WORKER = """\
Makes runs of a race until none is left, beside other workers on any machine that reaches the store
and the queue. Each run is made by one worker; the run of a dead worker goes on in another one, from
its checkpoint where both reach tracking.root. Start as many as you like, at any time.

  suite=, optimizers=, workloads=, seeds=, conditions=, calibrations=, tracking.KEY
                          the race, as in timetrial bench; the same for all workers
  tracking.queue=URL      database of the claims (default: as in timetrial bench)
  worker.pool=NAME        pool of identical machines of this one; makes its time budgets comparable
  worker.gpus=N           refuse to begin unless JAX sees N GPUs
  worker.heartbeat_seconds=S    pause between two signs of life (default: 15); a worker counts as
                          dead after four missed ones
"""

WORKER_EXAMPLES = """\
examples:
  timetrial worker suite=quick conditions=[step]
  timetrial worker suite=paper-step tracking.uri=postgresql://me@db/timetrial worker.gpus=1
"""

STATUS = """\
Shows a race by several workers: which runs are running, where and for how long, and which failed.

  suite=, tracking.experiment=, tracking.root=, tracking.uri=, tracking.queue=
                          the race, as in timetrial bench
"""

STATUS_EXAMPLES = """\
examples:
  timetrial status suite=quick
  timetrial status suite=paper-step tracking.uri=postgresql://me@db/timetrial --all
"""

CANCEL = """\
Ends the workers of a race on all machines within a minute. Their runs are saved; the same command
continues the race later.

  suite=, tracking.experiment=, tracking.root=, tracking.uri=, tracking.queue=
                          the race, as in timetrial bench
"""

CANCEL_EXAMPLES = """\
examples:
  timetrial cancel suite=quick
  timetrial cancel suite=paper-step tracking.uri=postgresql://me@db/timetrial --forget
"""
