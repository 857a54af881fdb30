//! A random history.

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::story::{
    Back, DEVICES, Forked, JOIN_RULES, Meant, NAMES, Of, Op, RULES, Reading, SAME_LIMIT, VERSIONS, VISIBILITIES, WORDS,
    Where, Who, Wished, Writing,
};

/// A history of so many operations, the same for the same seed.
pub fn history(seed: u64, length: usize) -> Vec<Op> {
    let mut dice = Dice { rng: StdRng::seed_from_u64(seed), busy: (0, 0) };
    dice.busy = dice.any_device();
    // What is rare in most histories is frequent in some.
    let flavour = dice.below(10);
    let mut ops = vec![dice.create()];
    if flavour >= CROWD {
        if let Op::Create { public, named, .. } = &mut ops[0] {
            (*public, *named) = (true, true);
        }
        // All are there from the beginning, and whoever doesn't need them is not told of them until they speak.
        ops.extend((1..NAMES.len()).map(|who| Op::Join { who, room: 0 }));
        dice.busy = (dice.below(2), 2);
    }
    while ops.len() < length {
        ops.push(if ops.len() == 3 && dice.one_in(2) { dice.create() } else { dice.op(flavour) });
    }
    ops
}

/// From this flavour on, all talk in one room.
const CROWD: usize = 7;

struct Dice {
    rng: StdRng,
    /// The device that is used as much as all others together.
    busy: (Who, usize),
}

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly the young ones.
    fn back(&mut self) -> Back {
        if self.one_in(3) { self.below(20) } else { self.below(4) }
    }

    fn who(&mut self) -> Who {
        self.below(NAMES.len())
    }

    /// Somebody who is likely to have the power.
    fn mighty(&mut self) -> Who {
        [0, 0, 0, 1, 2][self.below(5)]
    }

    fn create(&mut self) -> Op {
        let visibility = self.below(VISIBILITIES.len());
        Op::Create {
            by: 0,
            visibility,
            version: self.below(VERSIONS.len()),
            public: !self.one_in(4),
            named: self.one_in(2),
        }
    }

    fn device(&mut self) -> (Who, usize) {
        if self.one_in(2) { self.busy } else { self.any_device() }
    }

    fn any_device(&mut self) -> (Who, usize) {
        let who = self.who();
        (who, self.below(DEVICES[who]))
    }

    fn op(&mut self, flavour: usize) -> Op {
        let room = self.below(2);
        let who = self.who();
        let (reader, device) = self.device();
        if flavour >= CROWD && self.one_in(3) {
            let (reader, device) = self.busy;
            return match self.one_in(2) {
                true => Op::Say { who, device: 0, room: 0 },
                false => self.sync(reader, device),
            };
        }
        match self.below(100) {
            0..24 => self.sync(reader, device),
            24..40 => {
                let who = self.speaker();
                Op::Say { who, device: self.below(DEVICES[who]), room }
            }
            40..48 => self.write(room),
            48..65 => self.membership(who, room),
            65..70 => match self.below(6) {
                0 => Op::Topic { by: self.mighty(), room },
                1..4 => Op::Odd { by: self.mighty(), room, key: self.below(2) },
                4 => Op::JoinRule { by: 0, room, to: self.below(JOIN_RULES.len()) },
                _ => Op::Power { by: 0, room, much: self.one_in(2) },
            },
            70..72 => Op::Visibility { by: 0, room, to: self.below(VISIBILITIES.len()) },
            72..75 => Op::Redact { who: self.mighty(), room, back: self.back() },
            75..80 => Op::Read { who, room, back: self.back(), how: self.reading() },
            80 => self.wish(room),
            81 => {
                let room = (!self.one_in(2)).then_some(room);
                Op::Keep { who, room, key: self.below(2), value: self.rng.next_u32() % 100 }
            }
            82..85 => Op::FillGap { who: reader, device, room, limit: [1, 2, 5, 30][self.below(4)] },
            85..87 => {
                let from_device = self.one_in(2).then_some(device).filter(|d| *d < DEVICES[who]);
                let limit = [1, 3, 10, 50][self.below(4)];
                Op::Page { who, room, forward: self.one_in(2), limit, from_device }
            }
            87..89 => Op::Look { who, room, back: self.below(25) },
            89 => Op::LookAround { who: reader, room, device },
            90 => Op::Forget { who, room },
            91..93 => match self.below(6) {
                0 => Op::Restart,
                1..3 => Op::StartAnew { who: reader, device },
                _ => Op::Ignore { who, whom: self.who(), still: !self.one_in(3) },
            },
            93..95 => Op::Rewind { who: reader, device, syncs: 1 + self.below(3) },
            // What the flavour of the history is.
            _ => match flavour {
                0 | 1 => self.fork(room),
                2 => self.membership(who, room),
                3 => Op::Visibility { by: 0, room, to: self.below(VISIBILITIES.len()) },
                4 => self.sync(reader, device),
                5 => Op::Say { who: 0, device: 0, room },
                6 => self.wish(room),
                CROWD => Op::Rewind { who: reader, device, syncs: 1 },
                _ => self.write(room),
            },
        }
    }

    /// Mostly somebody who is in the room anyway.
    fn speaker(&mut self) -> Who {
        if self.one_in(2) { 0 } else { self.who() }
    }

    fn write(&mut self, room: Where) -> Op {
        let how = match self.below(10) {
            0..2 => Writing::Alone,
            2..6 => Writing::Answer(self.back()),
            6 => Writing::Nested(self.back()),
            7 => Writing::Refer(self.back()),
            8 => Writing::Edit(self.back()),
            _ => Writing::Notice,
        };
        let meant = match self.below(6) {
            0..2 => Meant::Unsaid,
            2 => Meant::Nobody,
            3..5 => Meant::One(self.who()),
            _ => Meant::Room,
        };
        Op::Write { who: self.speaker(), room, how, meant }
    }

    fn wish(&mut self, room: Where) -> Op {
        let what = match self.below(10) {
            0..3 => Wished::Silence,
            3..5 => Wished::Mentions,
            5..7 => Wished::Word(self.below(WORDS.len())),
            7 => Wished::Loud,
            8 => Wished::Less(self.who()),
            _ => Wished::Turned(self.below(RULES.len())),
        };
        Op::Wish { who: self.who(), room, what, still: !self.one_in(3) }
    }

    fn reading(&mut self) -> Reading {
        let of = match self.below(9) {
            0..2 => Of::All,
            2..4 => Of::Main,
            4..7 => Of::Thread,
            7 => Of::Nothing(self.below(2)),
            _ => return Reading::Marker,
        };
        Reading::Receipt { of, private: self.one_in(3) }
    }

    fn sync(&mut self, who: Who, device: usize) -> Op {
        let limit = if device == 2 { SAME_LIMIT } else { [0, 1, 1, 2, 3, 5, 5, 10, 20, 20][self.below(10)] };
        Op::Sync { who, device, limit, full_state: self.one_in(15), lost: self.one_in(8) }
    }

    fn membership(&mut self, who: Who, room: Where) -> Op {
        let by = self.mighty();
        match self.below(14) {
            0..5 => Op::Join { who, room },
            5..7 => Op::Leave { who, room },
            7..10 => Op::Invite { by, who, room },
            10 => Op::Kick { by, who, room },
            11 => Op::Ban { by, who, room },
            12 => Op::Unban { by, who, room },
            _ => Op::Knock { who, room },
        }
    }

    fn fork(&mut self, room: Where) -> Op {
        let what = match self.below(8) {
            0..4 => Forked::Words,
            4 => Forked::Topic,
            5 => [Forked::Leave, Forked::Join][self.below(2)],
            6 => Forked::Ban(1 + self.below(3)),
            _ => Forked::Visibility(self.below(VISIBILITIES.len())),
        };
        let by = if matches!(what, Forked::Ban(_) | Forked::Visibility(_)) { 0 } else { self.who() };
        Op::Fork { by, room, back: self.below(6), what }
    }
}
