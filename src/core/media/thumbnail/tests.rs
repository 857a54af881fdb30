mod animations;
mod bounds;
pub(crate) mod pictures;
mod stills;

use super::*;

const SCALED: Wish = Wish { width: 320, height: 240, method: Method::Scale, animated: false };
const CROPPED: Wish = Wish { width: 96, height: 96, method: Method::Crop, animated: false };
const MOVING: Wish = Wish { animated: true, ..SCALED };

fn thumbnail(source: &[u8], wish: Wish) -> Thumbnail {
    make(source, wish, &Bounds::default()).unwrap()
}

fn failure(source: &[u8], wish: Wish) -> Failure {
    make(source, wish, &Bounds::default()).unwrap_err()
}

#[test]
fn what_is_asked_for_is_one_of_a_few() {
    for (asked, method, given) in [
        ((1, 1), Method::Crop, (32, 32)),
        ((32, 32), Method::Crop, (32, 32)),
        ((33, 32), Method::Crop, (96, 96)),
        ((96, 96), Method::Crop, (96, 96)),
        ((48, 97), Method::Crop, (320, 320)),
        ((512, 512), Method::Crop, (640, 640)),
        ((1024, 768), Method::Crop, (640, 640)),
        ((32, 32), Method::Scale, (320, 240)),
        ((320, 240), Method::Scale, (320, 240)),
        ((240, 320), Method::Scale, (640, 480)),
        ((800, 600), Method::Scale, (800, 600)),
        ((65535, 1), Method::Scale, (800, 600)),
    ] {
        for animated in [false, true] {
            let wish = Wish { width: given.0, height: given.1, method, animated };
            assert_eq!(Wish::standard(asked.0, asked.1, method, animated), Some(wish), "{asked:?}");
            assert!(Wish::all().any(|other| other == wish));
        }
    }
    for (width, height) in [(0, 0), (0, 32), (32, 0), (1 << 16, 32), (32, u64::MAX)] {
        assert_eq!(Wish::standard(width, height, Method::Scale, false), None, "{width}x{height}");
    }
    assert_eq!(Wish::all().count(), 14);
}
