from lowlight_cyclegan.web.limits import TokenBucket


class TestTokenBucket:

    def test_a_burst_then_the_rate(self):
        now = [0.0]
        bucket = TokenBucket(rate=6, clock=lambda: now[0])
        assert [bucket.take('a') for _ in range(7)] == [True] * 6 + [False]
        assert bucket.take('b')
        now[0] = 9.9
        assert not bucket.take('a')
        now[0] = 10
        assert bucket.take('a') and not bucket.take('a')

    def test_rates_below_one_grant_one_photo(self):
        now = [0.0]
        bucket = TokenBucket(rate=0.5, clock=lambda: now[0])
        assert bucket.take('a') and not bucket.take('a')
        now[0] = 120
        assert bucket.take('a')

    def test_forgets_addresses_that_have_paused(self):
        now = [0.0]
        bucket = TokenBucket(rate=6, clock=lambda: now[0])
        for i in range(1000):
            bucket.take(i)
        now[0] = 60
        bucket.take('last')
        assert len(bucket._levels) == 1
