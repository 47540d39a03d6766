"""What a camera on published weights takes for normal and for abnormal, before anybody has told it more.

Normal: what the annotators of UCA (https://arxiv.org/abs/2309.13925) most often saw in normal surveillance video of
UCF-Crime, counted over the 910 normal videos of the lists that the main method's authors released: people who walk,
stand, sit, talk, carry, push, open doors; cars, trucks, buses and two-wheelers that pass, turn, wait and park; counters
with clerks and customers. Colours and sides of the picture, which make most of those sentences, say nothing about a
place, and are left out. The sentences are the kit's own.

Abnormal: the thirteen classes of UCF-Crime, with falls and smoke, as somebody at a camera would say them.

A place has its own rules: write its sentences, one per line, into a file (``CAPTIONS=``, ``PROMPTS=``).
"""

NORMAL = (
    "a person walks by", "people walk along the pavement", "people walk in different directions",
    "two people walk side by side", "a group of people walks together", "a pedestrian crosses the road",
    "a person stands and waits", "people stand and talk", "a person sits on a chair", "people sit at a table",
    "a person looks at a phone", "a person talks on the phone", "a person carries a bag", "a person carries a box",
    "a person pushes a cart", "a person pushes a pram", "a person walks a dog", "a child walks with an adult",
    "a person opens a door", "a person enters through a door", "a person leaves through a door",
    "a person walks up the stairs", "a person gets into a car", "a person gets out of a car",
    "a car drives along the road", "several cars drive along the road", "a car turns at the intersection",
    "cars wait at the traffic light", "a car stops at the side of the road", "cars are parked", "a car parks",
    "a truck drives along the road", "a bus drives along the road", "a van stands at the side of the road",
    "a motorcycle drives along the road", "an electric scooter passes", "a person rides a bicycle",
    "a person unloads a truck", "a worker cleans the floor", "a clerk stands behind the counter",
    "a customer stands at the counter", "a customer pays at the counter", "a customer looks at the shelves",
    "a person takes something from a shelf", "a person puts something on a table", "a person works at a computer",
    "people queue", "people eat and drink", "an animal walks by", "trees move in the wind", "an empty road",
    "an empty street at night", "an empty room", "an empty corridor", "a closed shop", "nothing happens",
)  # fmt: skip
ABNORMAL = (
    "people fight", "a person hits another person", "a person kicks somebody on the ground",
    "a person points a gun", "a person shoots a gun", "a person robs somebody", "a person snatches a bag and runs",
    "a person steals something", "a person breaks into a house", "a person breaks a window",
    "a person destroys things", "a person sets something on fire", "a fire burns", "smoke fills the place",
    "something explodes", "a car crashes into another car", "a car hits a person", "a car lies on its roof",
    "a person lies on the ground", "a person falls down", "people run away in panic",
    "police officers arrest a person",
)  # fmt: skip
