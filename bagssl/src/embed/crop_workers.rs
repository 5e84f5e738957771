//! The threads that decode images and cut patches, as they are asked to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bagssl_core::bag::{Bag, Grid};
use bagssl_core::patch::{Crop, ImageSize};
use bagssl_core::random::Address;
use bagssl_data::{Budget, Cutter, Decoded, Image, OnBadImage};

use super::Stream;
use crate::error::{Error, Result};

/// A decoded image, with its crops in the order in which they are looked at.
pub(super) struct Picture {
    image: Decoded,
    /// When the work on it began: before it was read.
    pub(super) begun: Instant,
    pub(super) crops: Vec<Crop>,
}

/// What a thread is asked for.
enum Job {
    /// To decode this image, and cut so many of its first patches.
    Open(usize, usize),
    /// To cut more patches of an image.
    Cut(usize, Arc<Picture>, std::ops::Range<usize>),
}

impl Job {
    fn image(&self) -> usize {
        let (Job::Open(image, _) | Job::Cut(image, ..)) = self;
        *image
    }
}

/// What comes back.
pub(super) enum Answer {
    /// Patches of an image.
    Cut(Cut),
    /// There is no memory for this image before another is done with.
    NoRoom(usize),
    /// This image is left out, and why.
    Bad(usize, String),
}

/// Some patches of an image, cut.
pub(super) struct Cut {
    pub(super) image: usize,
    pub(super) picture: Arc<Picture>,
    pub(super) range: std::ops::Range<usize>,
    pub(super) values: Vec<f32>,
}

/// The threads. They end when this is dropped.
pub(super) struct Feed {
    jobs: Sender<Job>,
    answers: Receiver<Result<Answer>>,
    /// Answers that are still to come.
    outstanding: usize,
}

impl Feed {
    /// Starts so many threads.
    pub(super) fn start<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        stream: &'scope Stream<'_>,
        threads: usize,
        budget: &'scope Arc<Budget>,
    ) -> Feed {
        let ((jobs, queue), (sender, answers)) = (channel::<Job>(), channel());
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (queue, sender) = (queue.clone(), sender.clone());
            scope.spawn(move || {
                let spec = stream.spec;
                let mut cutter = Cutter::new(spec.patch.input(), spec.filter, spec.normalization);
                loop {
                    let job = queue.lock().expect("no thread panics with it").recv();
                    // A closed channel means that nobody wants more.
                    let Ok(job) = job else { return };
                    let image = job.image();
                    let answer = AssertUnwindSafe(|| stream.answer(job, &mut cutter, budget));
                    // An answer that never comes would be waited for.
                    let answer = catch_unwind(answer)
                        .unwrap_or_else(|_| Err(Error::Panicked { name: stream.dataset.name(image).into() }));
                    if sender.send(answer).is_err() {
                        return;
                    }
                }
            });
        }
        Feed { jobs, answers, outstanding: 0 }
    }

    pub(super) fn open(&mut self, image: usize, patches: usize) {
        self.ask(Job::Open(image, patches));
    }

    pub(super) fn cut(&mut self, image: usize, picture: Arc<Picture>, range: std::ops::Range<usize>) {
        self.ask(Job::Cut(image, picture, range));
    }

    fn ask(&mut self, job: Job) {
        self.outstanding += 1;
        self.jobs.send(job).expect("the threads run until this is dropped");
    }

    /// The next answer; `None` if nothing was asked for that has not been answered.
    pub(super) fn next(&mut self) -> Result<Option<Answer>> {
        if self.outstanding == 0 {
            return Ok(None);
        }
        self.outstanding -= 1;
        self.answers.recv().expect("the threads run until this is dropped").map(Some)
    }
}

impl Stream<'_> {
    fn answer(&self, job: Job, cutter: &mut Cutter, budget: &Arc<Budget>) -> Result<Answer> {
        let (image, picture, range) = match job {
            Job::Open(image, patches) => {
                let picture = match self.prepare(image, budget)? {
                    Ok(Some(picture)) => picture,
                    Ok(None) => return Ok(Answer::NoRoom(image)),
                    Err(reason) => return Ok(Answer::Bad(image, reason)),
                };
                let range = 0..patches.min(picture.crops.len());
                (image, Arc::new(picture), range)
            }
            Job::Cut(image, picture, range) => (image, picture, range),
        };
        let mut values = Vec::new();
        picture.crops[range.clone()].iter().for_each(|&crop| cutter.cut(&picture.image, crop, &mut values));
        Ok(Answer::Cut(Cut { image, picture, range, values }))
    }

    /// Decodes an image and chooses its patches, if there is room, or says why it is left out.
    fn prepare(&self, image: usize, budget: &Arc<Budget>) -> Result<std::result::Result<Option<Picture>, String>> {
        let begun = Instant::now();
        let decoded = self.dataset.try_decode(image, budget, &|size| self.bytes_of_crops(size));
        let picture = match self.options.on_bad_image.skip_or_fail(decoded)? {
            Ok(Some(picture)) => picture,
            Ok(None) => return Ok(Ok(None)),
            Err(reason) => return Ok(Err(reason)),
        };
        match self.crops(&picture) {
            Ok(crops) => Ok(Ok(Some(Picture { image: picture, begun, crops }))),
            Err(error) if self.options.on_bad_image == OnBadImage::Skip => Ok(Err(error.to_string())),
            Err(error) => Err(Error::Patch { name: self.dataset.name(image).into(), error }),
        }
    }

    /// The memory of the list of an image's patches, and of their order.
    fn bytes_of_crops(&self, size: ImageSize) -> u64 {
        let bag = self.options.patches.bag(&self.spec.patch, size);
        let patches = match bag {
            Ok(Bag::Grid { spec, stride }) => Grid::new(spec, size, stride).map_or(0, Grid::patches),
            Ok(Bag::Random { patches, .. }) => patches as usize,
            // Whole images have one; that there are none is said when they are listed.
            Ok(_) | Err(_) => 1,
        };
        (patches * (size_of::<Crop>() + size_of::<u32>())) as u64
    }

    /// The crops of an image, in the order in which they are looked at.
    fn crops(&self, picture: &Image) -> bagssl_core::Result<Vec<Crop>> {
        // Drawn by the image itself, so that it has the same patches wherever it comes from.
        let address = Address { image: picture.fingerprint(), ..Address::default() };
        let bag = self.options.patches.bag(&self.spec.patch, picture.size())?;
        Ok(match bag {
            Bag::Grid { spec, stride } if self.is_any_time() => {
                let grid = Grid::new(spec, picture.size(), stride)?;
                grid.order(address).map(|patch| grid.crop(patch)).collect()
            }
            bag => bag.crops(picture.size(), address)?,
        })
    }
}
