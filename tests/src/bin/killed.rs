//! A small run that kills itself (SIGKILL) at a given place: `killed FOLDER none|step|save|rename`. Called again it
//! resumes. The test `resume.rs` looks at what is left.

use std::path::Path;
use std::process::Command;

use bagssl_core::batch::SourceError;
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_files::{StagedFile, write_atomic};
use bagssl_tests::loader;
use bagssl_train::Result;
use bagssl_train::run_state::{CHECKPOINT, Position, Retention, RunFolder, STATES, SaveInterval, StateStore, States};

/// The step at which a run dies: in the middle of the second epoch, whose 5 steps are 6 to 10, and before the next save.
const DEADLY_STEP: u64 = 8;
/// States are saved after steps 3, 6, 9, 12 and 15.
const EVERY: SaveInterval = SaveInterval::Steps(3);

fn die() -> ! {
    let own = std::process::id().to_string();
    // The signal cannot be caught: nothing is tidied up, as when the machine loses power.
    let _ = Command::new("kill").args(["-9", &own]).status();
    std::process::abort()
}

struct Dying<'a> {
    states: States,
    folder: &'a Path,
    interruption: &'a str,
    saves: usize,
}

impl StateStore for Dying<'_> {
    fn is_due(&self, position: Position) -> bool {
        self.states.is_due(position)
    }

    fn save(&mut self, position: Position, bytes: &[u8]) -> Result<()> {
        self.saves += 1;
        match (self.interruption, self.saves) {
            ("save", 2) => {
                let partial = self.folder.join(".state.abcdef.partial");
                std::fs::write(partial, &bytes[..bytes.len() / 2]).expect("the folder can be written to");
                die()
            }
            ("rename", 2) => {
                let _staged =
                    StagedFile::write(&self.folder.join("state"), bytes).expect("the folder can be written to");
                die()
            }
            _ => self.states.save(position, bytes),
        }
    }
}

struct AtStep<'a>(&'a str);

impl Observer for AtStep<'_> {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        match event {
            Event::Step { step: DEADLY_STEP, .. } if self.0 == "step" => die(),
            _ => Ok(Verdict::Continue),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, interruption] = arguments.as_slice() else {
        eprintln!("expected FOLDER and none, step, save or rename");
        std::process::exit(2);
    };
    let folder = RunFolder::open(Path::new(folder)).expect("nobody else writes there");
    let states = States::new(folder.join(STATES), Retention { interval: EVERY, ..Retention::default() });
    let earlier = states.newest().expect("a state is whole").map(|found| found.bytes);
    let mut run = bagssl_tests::run(earlier.as_deref()).expect("the settings are sound, and a state is whole");
    println!("from step {}", run.step());
    let mut store = Dying { states, folder: &folder.join(STATES), interruption, saves: 0 };
    run.run(&loader(2), &mut AtStep(interruption), &mut store).expect("the run goes through");
    let checkpoint = run.checkpoint().expect("the model can be written");
    write_atomic(&folder.join(CHECKPOINT), &checkpoint).expect("the folder can be written to");
}
