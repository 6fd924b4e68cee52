#!/usr/bin/env python3
"""Workloads on arrays of numbers, on every device, with files larger than the device memory. Results are
compared with what Python computes, besides --verify."""

import array
import itertools
import math
import operator
import os
import random
import unittest

from command import EACH_DEVICE, SIZE, SMALL, CliTest


FLOAT_MAX = 3.4028234e38


def price(spot, strike, years, rate, volatility):
    """Of the call and of the put, and what both are small against. Overflows only where the discounted strike
    does."""
    def normal_cdf(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    deviation = volatility * math.sqrt(years)
    middle = (math.log(spot / strike) + rate * years) / deviation
    d1, d2 = middle + 0.5 * deviation, middle - 0.5 * deviation
    discounted = strike * math.exp(-rate * years)
    return (spot * normal_cdf(d1) - discounted * normal_cdf(d2),
            discounted * normal_cdf(-d2) - spot * normal_cdf(-d1), spot + discounted)


class NumberWorkloads(CliTest):
    def test_reduce_adds_floats(self):
        # Small whole numbers: their sums are exact in whatever order.
        values = array.array("f", [self.random.randrange(-1000, 1000) for _ in range(SIZE // 4 + 1)])
        path = self.file(values.tobytes())
        for options in EACH_DEVICE:
            self.assertEqual(self.run_json("reduce", path, *options)["result"], {"sum": sum(values)})

    def test_reduce_of_values_whose_float_sum_overflows(self):
        path = self.file(array.array("f", [3e38] * 1000 + [-3e38] * 1000).tobytes())
        self.assertEqual(self.run_json("reduce", path)["result"], {"sum": 0.0})

    def test_saxpy_changes_y_and_leaves_x(self):
        count = SIZE // 4 + 1
        y = array.array("f", [self.random.randrange(1000) for _ in range(count)])
        x = array.array("f", [self.random.randrange(1000) for _ in range(count)])
        expected = array.array("f", [-2.5 * a + b for a, b in zip(x, y)]).tobytes()
        x_path = self.file(x.tobytes(), "x")
        for options in EACH_DEVICE:
            y_path = self.file(y.tobytes(), "y")
            report = self.run_json("saxpy", y_path, x_path, "--a", "-2.5", *options)
            self.assertEqual((report["file"], report["bytes"]), (y_path, 8 * count))
            self.assertEqual(self.content(y_path), expected)
        self.assertEqual(self.content(x_path), x.tobytes())

    def test_saxpy_is_fused(self):
        # The product needs more than 24 bits: rounded before the addition it would cancel to 0.
        near_one = 1 + 2.0**-23
        y = self.file(array.array("f", [-(1 + 2.0**-22)]).tobytes(), "y")
        x = self.file(array.array("f", [near_one]).tobytes(), "x")
        self.run_json("saxpy", y, x, "--a", repr(near_one))
        self.assertEqual(array.array("f", self.content(y))[0], 2.0**-46)

    def test_saxpy_with_a_factor_that_is_not_finite_or_very_small(self):
        x = self.file(array.array("f", [1, -2]).tobytes(), "x")
        small = array.array("f", [1e-40])[0]
        for factor, right in (("inf", [math.inf, -math.inf]), ("-Infinity", [-math.inf, math.inf]),
                              ("1e-40", [small, -2 * small]), ("+1", [1, -2])):
            y = self.file(bytes(8), "y")
            self.run_json("saxpy", y, x, "--a", factor)
            self.assertEqual(list(array.array("f", self.content(y))), right)

    def test_scan_wraps_around(self):
        values = self.words(SIZE // 4 + 3)
        expected = array.array("I", itertools.accumulate(values, lambda a, b: (a + b) % 2**32))
        for options in EACH_DEVICE:
            path = self.file(values.tobytes())
            report = self.run_json("scan", path, *options)
            self.assertEqual(report["result"], {"elements": len(values), "sum": expected[-1]})
            self.assertEqual(self.content(path), expected.tobytes())

    def test_matmul_of_any_shape(self):
        shapes = [(200, 150, 170), (2, 20000, 3), (3, 2, 20000), (33, 31, 1), (1, 1, 1)]
        small = [(1, 5000, 3), (2, 1, 5000), (40, 33, 50)]
        for rows, inner, columns in small if SMALL else shapes:
            # Small whole numbers: their sums are exact in whatever order.
            a = [self.random.randrange(-50, 50) for _ in range(rows * inner)]
            b = [self.random.randrange(-50, 50) for _ in range(inner * columns)]
            expected = array.array("f", (
                sum(map(operator.mul, a[row * inner:(row + 1) * inner], b[column::columns]))
                for row in range(rows) for column in range(columns)))
            a_path = self.file(array.array("f", a).tobytes(), "a")
            b_path = self.file(array.array("f", b).tobytes(), "b")
            for options in EACH_DEVICE:
                with self.subTest(rows=rows, inner=inner, columns=columns):
                    c_path = self.file(b"\xff" * 4 * rows * columns, "c")
                    report = self.run_json("matmul", a_path, b_path, c_path, "--rows", str(rows), *options)
                    self.assertEqual(report["result"], {"rows": rows, "columns": columns})
                    self.assertEqual(report["file"], c_path)
                    self.assertEqual(self.content(c_path), expected.tobytes())

    def test_matmul_of_a_matrix_and_itself(self):
        path = self.file(array.array("f", [1, 2, 3, 4]).tobytes())
        product = self.file(bytes(16), "product")
        for options in EACH_DEVICE:
            self.run_json("matmul", path, path, product, "--rows", "2", *options)
            self.assertEqual(list(array.array("f", self.content(product))), [7, 10, 15, 22])

    def test_matmul_of_numbers_that_are_rounded(self):
        values = array.array("f", [self.random.gauss(0, 1) for _ in range(100 * 100)])
        a, b = self.file(values.tobytes(), "a"), self.file(values[::-1].tobytes(), "b")
        self.run_json("matmul", a, b, self.file(bytes(40000), "c"), "--rows", "100")

    def test_blackscholes_prices_options_and_leaves_their_terms(self):
        count = SIZE // 20
        terms = [(self.random.uniform(5, 30), self.random.uniform(1, 100), self.random.uniform(0.25, 10))
                 for _ in range(count)]
        records = array.array("f", itertools.chain.from_iterable((*term, -1.0, -1.0) for term in terms))
        rate, volatility = 0.02, 0.3
        for options in EACH_DEVICE:
            path = self.file(records.tobytes())
            report = self.run_json("blackscholes", path, "--rate", str(rate), "--volatility", str(volatility),
                                   *options)
            self.assertEqual(report["result"], {"options": count})
            priced = array.array("f", self.content(path))
            for at in range(0, len(records), 5):
                self.assertEqual(priced[at:at + 3], records[at:at + 3])
                call, put, _ = price(*records[at:at + 3], rate, volatility)
                self.assertAlmostEqual(priced[at + 3], call, delta=1e-4)
                self.assertAlmostEqual(priced[at + 4], put, delta=1e-4)

    def test_blackscholes_of_a_textbook_option(self):
        # Hull, "Options, Futures, and Other Derivatives": 4.76 and 0.81.
        path = self.file(array.array("f", [42, 40, 0.5, 0, 0]).tobytes())
        self.run_json("blackscholes", path, "--rate", "0.1", "--volatility", "0.2")
        call, put = array.array("f", self.content(path))[3:]
        self.assertEqual((round(call, 2), round(put, 2)), (4.76, 0.81))

    def test_blackscholes_of_extreme_and_of_impossible_options(self):
        extreme = [(100, 100, 1e-8), (100, 100.00001, 1e-6), (1e-3, 1e6, 1), (1e6, 1e-3, 50), (1, 1, 1e-30)]
        impossible = [(0, 1, 1), (1, -1, 1), (1, 1, 0), (math.nan, 1, 1), (1, math.inf, 1)]
        terms = [term for term in extreme + impossible]
        path = self.file(array.array("f", itertools.chain.from_iterable((*term, 0, 0) for term in terms))
                         .tobytes())
        for rate, volatility in (("0.05", "0.2"), ("-0.01", "0.001"), ("0", "3")):
            self.run_json("blackscholes", path, "--rate", rate, "--volatility", volatility)
            priced = array.array("f", self.content(path))
            for at in range(0, len(priced), 5):
                self.assertEqual(all(map(math.isnan, priced[at + 3:at + 5])), at >= 5 * len(extreme))

    def priced(self, records, rate, volatility):
        """Spot, strike, years, call and put of each."""
        path = self.file(records.tobytes())
        self.run_json("blackscholes", path, f"--rate={rate}", "--volatility", volatility)
        numbers = array.array("f", self.content(path))
        return [numbers[at:at + 5] for at in range(0, len(numbers), 5)]

    def test_blackscholes_where_the_square_of_the_volatility_or_a_deviation_is_no_float(self):
        for rate, volatility, terms, call, put in (
                ("0", "1e20", (100, 50, 1), 100, 50), ("0", "2.7e19", (100, 50, 1), 100, 50),
                ("0", "2e4", (100, 50, 3e30), 100, 50), ("0", "3", (1480.8, 7.5e20, 1.56e38), 1480.8, 7.5e20),
                ("0", "1e-38", (100, 100, 1e-20), 0, 0), ("0", "1e-38", (100, 50, 1e-20), 50, 0),
                ("0.05", "1e30", (100, 50, 1e20), 100, 0), ("1e30", "1e30", (100, 50, 1e30), 100, 0),
                ("0.1", "1e-40", (90, 100, 1), 0, 100 * math.exp(-0.1) - 90)):
            with self.subTest(rate=rate, volatility=volatility, terms=terms):
                record, = self.priced(array.array("f", [*terms, 0, 0]), rate, volatility)
                self.assertAlmostEqual(record[3], call, delta=1e-6 * (terms[0] + terms[1]))
                self.assertAlmostEqual(record[4], put, delta=1e-6 * (terms[0] + terms[1]))

    def test_blackscholes_where_a_discount_or_a_discounted_strike_is_no_float(self):
        for rate, terms in (("-185", (1, 1e-44, 1)), ("-3", (1e38, 1e38, 1)), ("100", (1, 1e38, 1))):
            with self.subTest(rate=rate, terms=terms):
                record, = self.priced(array.array("f", [*terms, 0, 0]), rate, "1")
                *prices, size = price(*record[:3], float(rate), 1)
                for found, right in zip(record[3:], prices):
                    if right < FLOAT_MAX:
                        self.assertAlmostEqual(found, right, delta=2e-5 * size)

    def test_blackscholes_of_any_positive_numbers(self):
        # Quotients, exponentials and terms overflow and underflow where the prices do not.
        seed = int(os.environ.get("APRIME_TEST_SEED", random.SystemRandom().getrandbits(32)))
        bits = random.Random(seed)
        largest = 0x7f7fffff
        records = array.array("I", itertools.chain.from_iterable(
            (*(bits.randint(1, largest) for _ in range(3)), 0, 0) for _ in range(SIZE // 60)))
        for rate, volatility in (("0.05", "0.2"), ("-0.01", "0.001"), ("0", "3"), ("1e-30", "1e-20"),
                                 ("1e10", "1e10"), ("0.05", "1e5"), ("-1e20", "1e38"), ("0", "1e-44")):
            with self.subTest(APRIME_TEST_SEED=seed, rate=rate, volatility=volatility):
                for record in self.priced(records, rate, volatility):
                    try:
                        *prices, size = price(*record[:3], float(rate), float(volatility))
                    except OverflowError:
                        continue
                    if size >= FLOAT_MAX:
                        continue
                    for found, right in zip(record[3:], prices):
                        # A comparison is cheaper than an assertion.
                        if not abs(found - right) <= 2e-5 * size + 1e-37:
                            self.fail(f"{list(record)}, right: {prices}")


if __name__ == "__main__":
    unittest.main()
