"""A run that is shown pictures from Python, such as a notebook or a loop over a camera's frames.

from edge_zofc import Learner

with Learner.open("run") as learner:
    learner.teach(frames, "mug")       # numpy RGB uint8 [H, W, 3], Pillow pictures, bytes of files, or paths
    print(learner.predict(frame).name)
"""

from edge_zofc.engine.answers import Answer, ClassInfo, KeptBack
from edge_zofc.engine.predict import Guess
from edge_zofc.learner.child import Progress
from edge_zofc.learner.face import Learner, ShownPicture, Taught
from edge_zofc.learner.pictures import Picture

__all__ = ["Answer", "ClassInfo", "Guess", "KeptBack", "Learner", "Picture", "Progress", "ShownPicture", "Taught"]
