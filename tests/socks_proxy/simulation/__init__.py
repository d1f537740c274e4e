"""Both ends of the proxy and their pool over a simulated network: in memory, on a jumping clock, from a seed.

weather.py        what happens to a connection: delays, splits, stalls, resets
network.py        sockets and the wires between them, as a kernel has them
substitutes.py    puts the network, its clock and an order of tasks in the place of the real ones
plan.py           what a seed does: who asks for what, and what goes wrong
applications.py   both sides of a session: the application and its destination
processes.py      the ends, which can be stopped, killed and started again
oracle.py         what must hold
run.py            one seed from its beginning to its end

`python -m tests.socks_proxy.simulation SEED` runs a seed and prints its trace, `... FIRST LAST` runs a range.
"""
