"""An ASGI app whose requests wait for a database: a page of orders with their customers and sums, and a line in a log,
from an SQLite file that the first worker makes.

DATABASE_FILE=PATH   the file
"""

import asyncio
import os
import sqlite3
import threading

import hello

FILE = os.environ["DATABASE_FILE"]
CUSTOMERS = 500
ORDERS = 20_000
PAGE = 20

SCHEMA = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer, cents INTEGER NOT NULL);
CREATE INDEX orders_customer ON orders (customer);
CREATE TABLE visit (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL);
"""
QUERY = """
SELECT customer.name, COUNT(*), SUM(cents), MAX(cents) FROM orders JOIN customer ON customer.id = orders.customer
WHERE customer.id BETWEEN ? AND ? GROUP BY customer.id ORDER BY SUM(cents) DESC
"""

local = threading.local()
turn = 0


def connection():
    """One for each thread of each worker."""
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(FILE, timeout=30, isolation_level=None)
        local.connection.execute("PRAGMA synchronous = NORMAL")
    return local.connection


def fill():
    """Makes the tables, unless they are there. Workers that start together take turns."""
    database = sqlite3.connect(FILE, timeout=60, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("BEGIN IMMEDIATE")
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'visit'").fetchone():
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        customers = ((number, f"customer {number}") for number in range(CUSTOMERS))
        database.executemany("INSERT INTO customer VALUES (?, ?)", customers)
        orders = ((number, number * 7919 % CUSTOMERS, number * 104729 % 10_007) for number in range(ORDERS))
        database.executemany("INSERT INTO orders VALUES (?, ?, ?)", orders)
    database.execute("COMMIT")
    database.close()


def page(first):
    """The database queries of a request."""
    rows = connection().execute(QUERY, (first, first + PAGE - 1)).fetchall()
    if first % 100 == 0:
        connection().execute("INSERT INTO visit (customer) VALUES (?)", (first,))
    return [{"customer": name, "orders": count, "cents": total, "most": most} for name, count, total, most in rows]


async def app(scope, receive, send):
    """The ASGI application."""
    global turn
    if scope["type"] == "lifespan":
        await asyncio.to_thread(fill)
        await hello.lifespan(receive, send)
    elif scope["type"] == "http":
        turn += 1
        # Blocking drivers are called in threads, as in web frameworks.
        await hello.answer(send, await asyncio.to_thread(page, turn * PAGE % CUSTOMERS))
