//! The scripts that the server runs, each in one step.
//!
//! The entry is a hash: `v` its version, `f` the fence of its writer, `at` when it was written, `d` its value, and `n` the
//! number of the newest lease. The lease is a key of its own that expires; its value is its number. Numbers are compared
//! as numbers only where order matters, and stay below 2^53, up to which the server's scripts are exact.

/// A script and the hash by which a server that has it calls it.
pub(super) struct Script {
    pub(super) text: &'static str,
    pub(super) hash: String,
}

pub(super) struct Scripts {
    pub(super) load: Script,
    pub(super) swap: Script,
    pub(super) acquire: Script,
    pub(super) extend: Script,
    pub(super) release: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |text| Script { text, hash: redis::Script::new(text).get_hash().to_owned() };
        Self {
            load: script(LOAD),
            swap: script(SWAP),
            acquire: script(ACQUIRE),
            extend: script(EXTEND),
            release: script(RELEASE),
        }
    }
}

/// An entry from more than 5 s ahead is of any age: the clock of the server was set back since it was written.
const LOAD: &str = r"
local entry = redis.call('HMGET', KEYS[1], 'v', 'f', 'at', 'd')
if not entry[1] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local age = now - entry[3]
if age < -5000 then age = 9007199254740991 end
return {entry[1], entry[2], math.max(age, 0), entry[4]}
";

/// Arguments: the version that is replaced, the new one, the fence, how long the entry is kept, the value, and the channel and
/// the message of the change. A cluster may be sent it twice, if the first response was lost: it is written by then.
const SWAP: &str = r"
local entry = redis.call('HMGET', KEYS[1], 'v', 'n', 'f')
if entry[1] == ARGV[2] and entry[3] == ARGV[3] then return 1 end
if (entry[1] or '0') ~= ARGV[1] then return 0 end
if tonumber(ARGV[3]) < tonumber(entry[2] or '0') then return 0 end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'f', ARGV[3], 'at', now, 'd', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.pcall('PUBLISH', ARGV[6], ARGV[7])
return 1
";

/// Argument: how long the lease runs. Its number outlives it by an hour, so that a late writer is known.
const ACQUIRE: &str = r"
local left = redis.call('PTTL', KEYS[2])
if left >= 0 then return {0, math.max(left, 1)} end
local time = redis.call('TIME')
local number = tonumber(redis.call('HGET', KEYS[1], 'n') or '0') + 1
number = string.format('%.0f', math.max(number, time[1] * 1000000 + time[2]))
redis.call('SET', KEYS[2], number, 'PX', ARGV[1])
redis.call('HSET', KEYS[1], 'n', number)
local kept = ARGV[1] + 3600000
if redis.call('PTTL', KEYS[1]) < kept then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', kept)) end
return {number, 0}
";

/// Arguments: the number of the lease, and how long it runs from now.
const EXTEND: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
";

/// Arguments: the number of the lease, and the channel and the message of the change.
const RELEASE: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return 1
";
